"""A machine is bounded, labelled and scheduled as its spec says; asserted on what it finds."""

from __future__ import annotations

import errno
import os
import platform
import resource
import subprocess
from pathlib import Path

import pytest

from machinectl_py.codec import encode
from machinectl_py.config.label_spec import LabelSpec
from machinectl_py.config.spec import Rlimit, SeccompSpec
from machinectl_py.kernel.capabilities import bounding_set, parse_names
from machinectl_py.plan.context import Context, Hooks
from machinectl_py.plan.steps.attributes import RaiseRlimits
from tests.integration import specs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
only_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64")
SYS_RESOURCE = parse_names(("CAP_SYS_RESOURCE",))


def run(tree, machine, *argv, **changes):
    return specs.run(specs.make_spec(tree, machine, *argv, **changes))


def shell(tree, machine, script, **changes):
    """Return what a shell in a machine prints."""
    done = run(tree, machine, "/bin/sh", "-c", script, **changes)
    assert done.returncode == 0, done
    return done.stdout


def refused(tree, machine, **changes):
    """Return the one line that refuses to start a machine."""
    done = run(tree, machine, "true", **changes)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    return done.stderr


@pytest.fixture
def background(tree, machine, pymachine):
    """Return a function that boots a machine and gives its name."""

    def start(**changes):
        spec = specs.make_spec(
            tree, machine, payload={"kind": "boot"}, console="background", **changes
        )
        done = specs.run(spec, "background")
        assert done.returncode == 0, done
        return machine

    return start


@pytest.fixture
def alice(tree):
    with (tree / "etc/passwd").open("a") as file:
        file.write("alice:x:1234:1300::/home/alice:/bin/sh\n")
    return "alice"


# Attributes


def test_the_machine_keeps_to_its_processors(tree, machine):
    last = max(os.sched_getaffinity(0))
    shown = shell(tree, machine, "grep Cpus_allowed_list /proc/self/status", cpu_affinity=(last,))
    assert shown.split()[1] == str(last)


def test_the_oom_score_is_adjusted_from_the_callers(tree, machine):
    for value, seen in ((None, 100), (0, 0), (700, 700)):
        spec = specs.make_spec(
            tree, machine, "cat", "/proc/1/oom_score_adj", oom_score_adjust=value
        )
        command = ["choom", "--adjust", "100", "--", *specs.command(spec)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert int(shown) == seen


def test_the_oom_score_is_lowered_by_who_may(tree, machine):
    own = int(Path("/proc/self/oom_score_adj").read_text())
    done = run(tree, machine, "cat", "/proc/1/oom_score_adj", oom_score_adjust=own - 1)
    if bounding_set() & SYS_RESOURCE:
        assert int(done.stdout) == own - 1
    else:
        assert f"Failed to adjust the OOM score of PID 1 by {own - 1}: Permi" in done.stderr


@only_x86_64
@pytest.mark.parametrize(("name", "seen"), [("x86", "i686"), ("x86-64", "x86_64")])
def test_uname_shows_the_personality(tree, machine, name, seen):
    assert shell(tree, machine, "uname -m", personality=name).strip() == seen


@only_x86_64
def test_another_architecture_is_refused_with_those_there_are(tree, machine):
    line = refused(tree, machine, personality="arm64")
    assert "no personality 'arm64'" in line


@only_x86_64
def test_who_enters_has_the_attributes_too(background, pymachine):
    first = min(os.sched_getaffinity(0))
    name = background(personality="x86", cpu_affinity=(first,))
    script = "uname -m; grep Cpus_allowed_list /proc/self/status"
    done = pymachine("exec", name, "--", "sh", "-c", script)
    assert done.stdout.split() == ["i686", "Cpus_allowed_list:", str(first)], done


# Capabilities


def test_a_user_keeps_the_ambient_capabilities(tree, machine, alice):
    mask = parse_names(("CAP_NET_BIND_SERVICE", "CAP_KILL"))
    shown = shell(
        tree,
        machine,
        "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status",
        payload={"user": alice},
        ambient=mask,
    )
    assert {line.split()[1] for line in shown.splitlines()} == {f"{mask:016x}"}


def test_ambient_capabilities_let_a_user_act(tree, machine, alice):
    act = {"payload": {"user": alice}}
    script = "chown 1:1 /tmp/mine 2>/dev/null; stat -c %u /tmp/mine"
    made = "touch /tmp/mine; "
    assert shell(tree, machine, made + script, **act).strip() == "1234"
    able = shell(tree, machine, made + script, **act, ambient=parse_names(("CAP_CHOWN",)))
    assert able.strip() == "1"


def test_root_has_ambient_capabilities_for_those_it_becomes(tree, machine):
    mask = parse_names(("CAP_CHOWN",))
    script = "grep CapAmb /proc/self/status"
    assert shell(tree, machine, script, ambient=mask).split()[1] == f"{mask:016x}"


def test_ambient_capabilities_are_within_the_bounding_set(tree, machine):
    line = refused(tree, machine, ambient=parse_names(("CAP_SYS_MODULE",)))
    assert "CAP_SYS_MODULE" in line
    line = refused(tree, machine, ambient=1, payload={"kind": "boot"})
    assert "init" in line


# System calls: `perl -e 'syscall(...)'` makes one

CHROOT, FSYNC, KEYCTL, SOCKET = 161, 74, 250, 41


def errno_of(number, *arguments):
    """Return a script that prints the errno of a system call, 0 if it succeeds."""
    listed = ", ".join(map(str, (number, *arguments)))
    return f"perl -e '$! = 0; syscall({listed}); print $!+0, qq(\\n)'; "


@only_x86_64
def test_sync_has_no_effect(tree, machine):
    script = errno_of(FSYNC, 99)
    assert shell(tree, machine, script).strip() == str(errno.EBADF)
    seccomp = SeccompSpec(suppress_sync=True)
    assert shell(tree, machine, script, seccomp=seccomp).strip() == "0"


@only_x86_64
def test_families_are_restricted(tree, machine):
    script = "".join(errno_of(SOCKET, family, 1, 0) for family in (1, 2))
    allow = SeccompSpec(families=("AF_UNIX",))
    assert shell(tree, machine, script, seccomp=allow).split() == ["0", str(errno.EAFNOSUPPORT)]
    deny = SeccompSpec(families=("AF_UNIX",), families_deny=True)
    assert shell(tree, machine, script, seccomp=deny).split() == [str(errno.EAFNOSUPPORT), "0"]


@only_x86_64
def test_a_denied_call_answers_as_asked_and_so_it_does_to_who_enters(background, pymachine):
    name = background(seccomp=SeccompSpec(deny=("keyctl:ENOTTY",), suppress_sync=True))
    script = errno_of(KEYCTL, 99) + errno_of(FSYNC, 99)
    done = pymachine("exec", name, "--", "sh", "-c", script)
    assert done.stdout.split() == [str(errno.ENOTTY), "0"], done


@only_x86_64
def test_a_profile_stands_in_the_place_of_the_default(tree, machine):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV},
        ],
    }
    seccomp = SeccompSpec(profile=encode(profile))
    script = errno_of(CHROOT, 0) + errno_of(KEYCTL, 99)
    assert shell(tree, machine, script, seccomp=seccomp).split() == [
        str(errno.EXDEV),
        str(errno.EOPNOTSUPP),
    ]


@pytest.mark.parametrize(
    ("seccomp", "said"),
    [
        (SeccompSpec(profile="{"), "no JSON"),
        (SeccompSpec(profile="{}"), "defaultAction"),
        (SeccompSpec(profile="{}", deny=("bpf",)), "exclude each other"),
        (SeccompSpec(deny=("bpf:ENONE",)), "ENONE"),
        (SeccompSpec(families=("AF_NONE",)), "AF_NONE"),
    ],
)
def test_a_wrong_filter_is_refused_before_anything_is_touched(tree, machine, seccomp, said):
    assert said in refused(tree, machine, seccomp=seccomp)


# Limits


def test_limits_are_set(tree, machine):
    limits = (Rlimit(name="NOFILE", soft=100, hard=200), Rlimit(name="CORE", soft=0, hard=-1))
    script = "grep -E 'open files|core' /proc/1/limits"
    core, files = shell(tree, machine, script, rlimits=limits).splitlines()
    assert files.split()[3:5] == ["100", "200"]
    assert core.split()[4:6] == ["0", "unlimited"]


@pytest.mark.skipif(not bounding_set() & SYS_RESOURCE, reason="this host may not raise limits")
def test_hard_limits_of_a_user_namespace_are_raised_from_outside():
    command = ["prlimit", "--nofile=50:60", "unshare", "--user", "sh", "-c", "echo; exec cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        child.stdout.readline()
        context = Context(Hooks())
        context.give("leader", child.pid)
        limits = (
            Rlimit(name="NOFILE", soft=500, hard=600),
            Rlimit(name="CORE", soft=0, hard=0),
        )
        RaiseRlimits(rlimits=limits).apply(context)
        assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (50, 600)
        assert resource.prlimit(child.pid, resource.RLIMIT_CORE)[1] != 0
        child.stdin.close()


# Labels


@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="this kernel has SELinux")
def test_a_context_without_selinux_is_refused(tree, machine):
    line = refused(tree, machine, labels=LabelSpec(selinux="system_u:system_r:container_t:s0"))
    assert "no SELinux" in line


def test_a_profile_that_is_not_there_is_refused(tree, machine):
    line = refused(tree, machine, labels=LabelSpec(apparmor="there-is-none"))
    assert "AppArmor" in line
