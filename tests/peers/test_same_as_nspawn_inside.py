"""A machine looks inside as one of systemd-nspawn's does, or there is a reason.

A probe tells what is seen inside (`probe.sh`), once by each, on equal trees. Whatever is not the
same must be in DIFFERENT_ON_PURPOSE with both values.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.hosts.overlay import private_copy
from tests.hosts.trees import build
from tests.peers import inside
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# By reason: what is different, our value, systemd-nspawn's; patterns of fnmatch, None for absent.
DIFFERENT_ON_PURPOSE = {
    "A program inside may want to know who manages it.": (
        ("content /run/host/container-manager", "pymachine;", "systemd-nspawn;"),
        ("environment container", "pymachine", "systemd-nspawn"),
        ("manager Virtualization", "container-other", "systemd-nspawn"),
        ("systemd virtualization", "container-other", "systemd-nspawn"),
    ),
    "A machine's clocks begin with it, as those of a booted system do.": (
        ("namespace time*", "own", "host"),
    ),
    "An inheritable set that is full gives to programs with inheritable file capabilities what "
    "no one meant to give; CVE-2022-24769 was that. The bounding set is the same.": (
        ("status CapInh", "0000000000000000", "*"),
    ),
    "libseccomp makes one program for each group of calls; the answers to all calls are the same: "
    "test_seccomp_same_as_nspawn.": (("status Seccomp_filters", "[12]", "*"),),
    "The kernel counts them.": (("proc1 autogroup", "/autogroup-* nice 0;", "/autogroup-*"),),
    "The file system is called what it is.": (
        ("mount /sys/fs/cgroup", "cgroup2 cgroup2 / rw,*", "cgroup2 cgroup / rw,*"),
    ),
    "The mount tunnel stays as the host has /run: nosuid, nodev; what comes by it has its own.": (
        ("mount /run/host/incoming", "* ro,nosuid,nodev * master", "* ro * master"),
    ),
    "The controllers that our caller may use are the machine's too, also where no systemd manages "
    "the host.": (("content /sys/fs/cgroup/cgroup.controllers", "*", "*"),),
    "With or without a network of its own, a machine sees of /sys what describes devices; "
    "systemd-nspawn shows all where the network is the host's: /sys/firmware, /sys/power, …": (
        ("mount /sys", "tmpfs tmpfs / ro,nosuid,nodev,noexec,*", "sysfs sysfs / ro,nosuid,*"),
        ("mount /sys/*", "sysfs sysfs /* ro,nosuid,nodev,noexec,*", None),
        ("mount /sys/fs/fuse/connections", None, "fusectl *"),
        ("file /sys/*", None, "[dlf] *"),
        ("writable /sys/*", None, "no"),
        ("unit sys-*.mount", "loaded active mounted", None),
        ("unit sys-fs-fuse-connections.mount", "loaded inactive dead", "loaded active mounted"),
        ("unit sys-*", "loaded inactive dead", "loaded active *"),
    ),
    "/run/host is a file system of its own: what fills it up does not fill /run.": (
        ("mount /run/host", "tmpfs tmpfs / ro,nosuid,nodev,noexec *", "tmpfs tmpfs /host ro,*"),
    ),
    "systemd-nspawn binds twice what it shows in /run/host; one of each is covered.": (
        ("mount /run/host/incoming (2)", None, "* shared,master"),
        ("mount /run/host/os-release (2)", None, "* rw,relatime * shared*"),
    ),
    "Nothing that is mounted on the host later comes in but by the tunnel; since systemd 255 "
    "systemd-nspawn does the same.": (
        ("mount /", "overlay * shared", "overlay * shared,master"),
        ("mount /run/host/os-release", "* shared", "* shared,master"),
    ),
    "Names of files that are deleted.": (
        ("mount /proc/kmsg", "tmpfs tmpfs /kmsg//deleted rw,*", "tmpfs tmpfs /.#proc-kmsg* rw,*"),
        (
            "mount /proc/sys/kernel/random/boot_id",
            "tmpfs tmpfs /*boot-id//deleted ro,nosuid,nodev,noexec *",
            "tmpfs tmpfs /.#*boot-id* ro,nosuid,nodev,noexec *",
        ),
    ),
    "systemd-nspawn makes read-only one of two mounts of its boot ID only; ours both are.": (
        (
            "mount /proc/sys/kernel/random/boot_id (2)",
            "tmpfs tmpfs /*boot-id//deleted ro,nosuid,nodev,noexec *",
            "tmpfs tmpfs /.#*boot-id* rw,nosuid,nodev *",
        ),
    ),
    "As systemd-nspawn 257 has it, which is the newest to compare with.": (
        ("file /run/host/container-*", "f 0444 root:root ", "f 0644 root:root "),
        ("file /run/host/inaccessible", "d 0555 root:root ", "d 0755 root:root "),
        ("file /run/host/notify", "s 0200 root:root ", "s 0755 root:root "),
        ("file /run/host/unix-export", "d 0755 root:root ", None),
        ("writable /run/host/unix-export", "yes", None),
        ("mount /run/host/unix-export", "tmpfs *nosymfollow * shared,master", None),
        ("mount /dev/pts", "devpts *,gid=5,mode=600,*", "devpts *,gid=5,mode=620,*"),
        ("file /dev/pts/0", "c 0600 root:tty 88:0", "c 0620 root:tty 88:0"),
    ),
    "Until systemd 256 systemd-nspawn took what hides these from the host's /run/systemd, which is "
    "not there without systemd.": (
        ("mount /proc/*", "tmpfs tmpfs /inaccessible/reg ro,nosuid,nodev,noexec *", None),
        ("mount /proc/*", "tmpfs tmpfs /inaccessible/reg ro,*", "tmpfs tmpfs /host/ina* ro,*"),
        ("file /proc/*", "f 0 root:root ", "f 0[0-9]* root:root "),
        ("writable /proc/*", "no", "yes"),
        ("unit proc-*.mount", "loaded active mounted", None),
    ),
}
# Not seen before the payload runs: how far its init has come with what, and when, is its own.
OF_SYSTEMD = (
    ("fd *", "*", "*"),
    ("fd *", "*", None),
    ("fd *", None, "*"),
    ("unit run-credentials-*.mount", None, "loaded * *"),  # while a service that is done goes
    ("unit run-credentials-*.mount", "loaded * *", None),
)
OF_STUB_INIT = (
    # Ours shows of the machine what clients look up there; nspawn's, until 254, its caller's all.
    ("environment *", "*", None),
    ("environment *", None, "*"),
    ("environment *", "*", "*"),
    # sigwait(3) takes what it waits for out of the blocked signals: ours waits for all.
    ("status SigBlk", "0000000000000000", "fffc3f0e7ffafefd"),
)
# What is being made: --resolv-conf= and --timezone=.
NOT_YET = (("content /etc/resolv.conf", "*", "*"),)


def matches(value, pattern):
    """Say whether a fact is as a pattern has it, None being no such fact."""
    return value is pattern if None in (value, pattern) else fnmatchcase(value, pattern)


def is_listed(key, ours, theirs, more):
    """Say whether a difference is one that has a reason."""
    return any(
        fnmatchcase(key, what) and matches(ours, our) and matches(theirs, their)
        for listed in (*DIFFERENT_ON_PURPOSE.values(), NOT_YET, more)
        for what, our, their in listed
    )


def hold_same(ours, theirs, more=()):
    """Hold that two trees' probes have told the same but for what has a reason."""
    told = [
        f"{name}\n    ours:   {our}\n    theirs: {their}"
        for name, our, their in inside.differences(ours, theirs)
        if not is_listed(name, our, their, more)
    ]
    assert not told, "\n".join(told)


@pytest.fixture(params=["bookworm", "trixie"])
def trees(request):
    """Two equal trees."""
    pristine = build("machine", request.param)
    with private_copy(pristine) as one, private_copy(pristine) as other:
        yield one, other


def compare_commands(trees, machine, *, terminal, options=(), more=(), before=(), **keywords):
    one, other = trees
    for root in trees:
        inside.prepare(root, boot=False)
    payload = "/bin/sh", "/probe"
    mode = "--console=interactive" if terminal else "--console=pipe"
    nspawn = inside.nspawn(one, machine, mode, *options, *payload)
    inside.run([*before, *nspawn], terminal=terminal, **keywords)
    mode = "--pty" if terminal else "--pipe"
    pymachine = inside.pymachine(other, machine, "run", mode, *options, "--", *payload)
    inside.run([*before, *pymachine], terminal=terminal, **keywords)
    hold_same(other, one, more)


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_a_command(trees, machine, terminal):
    compare_commands(trees, machine, terminal=terminal)


def test_a_command_with_a_network_of_its_own(trees, machine):
    compare_commands(trees, machine, terminal=False, options=["--private-network"])


def test_a_command_as_pid_2(trees, machine):
    compare_commands(trees, machine, terminal=False, options=["--as-pid2"], more=OF_STUB_INIT)


def test_a_command_of_a_strange_caller(trees, machine):
    compare_commands(trees, machine, terminal=False, preexec_fn=inside.be_strange)


def test_a_command_that_is_passed_descriptors(trees, machine):
    """sd_listen_fds(3)."""
    passing = 'exec 3</etc/passwd 4</etc/group 5</etc/shells; LISTEN_FDS=2 LISTEN_PID=$$ exec "$@"'
    compare_commands(trees, machine, terminal=False, before=["sh", "-c", passing, "sh"])


@pytest.mark.parametrize("options", [[], ["--private-network"]], ids=["host-net", "own-net"])
def test_a_boot(trees, machine, options):
    one, other = trees
    for root in trees:
        inside.prepare(root, boot=True)
    inside.run(inside.nspawn(one, machine, *options, "--boot"))
    inside.run(inside.pymachine(other, machine, "boot", *options))
    wait_for(
        lambda: not Path(f"/run/pymachine/machines/{machine}").exists(), patience=inside.TIMEOUT
    )
    hold_same(other, one, OF_SYSTEMD)
