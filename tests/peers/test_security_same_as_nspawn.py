"""The same options bound a payload as systemd-nspawn does; each tells what it finds of itself."""

from __future__ import annotations

import os
import platform
import subprocess

import pytest

from tests.peers import inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

LOOK = """
uname -m
id -u
cat /proc/self/personality /proc/self/oom_score_adj /proc/self/limits
grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Cpus_allowed_list|Seccomp):' /proc/self/status
perl -e 'sub look { print $! + 0, qq(\\n); $! = 0 }
    $! = 0; syscall(250, 99); look; syscall(74, 99); look; syscall(161, 0); look;
    syscall(90, 0, 0); look; syscall(41, 16, 3, 9); look'
"""
FIRST = str(min(os.sched_getaffinity(0)))
CASES = {
    "nothing": (),
    "personality": ("--personality=x86",),
    "processors": (f"--cpu-affinity={FIRST}",),
    "oom score": ("--oom-score-adjust=321",),
    "a user": (
        "-u",
        "daemon",
    ),
    "ambient, of a user": ("-u", "daemon", "--ambient-capability=CAP_CHOWN,CAP_KILL"),
    "ambient, of root": ("--ambient-capability=CAP_CHOWN",),
    "ambient, with few more": (
        "-u",
        "daemon",
        "--ambient-capability=CAP_CHOWN",
        "--drop-capability=CAP_SYS_ADMIN,CAP_KILL",
        "--no-new-privileges=yes",
    ),
    "limits": ("--rlimit=NOFILE=100:200", "--rlimit=CORE=0", "--rlimit=NPROC=infinity"),
    "no sync": ("--suppress-sync=yes",),
    "calls": ("--system-call-filter=@keyring", "--system-call-filter=~chmod @sync"),
    "calls and no sync": ("--system-call-filter=~@sync", "--suppress-sync=yes"),
}
REFUSED = {
    "ambient beyond the bounding set": ("--ambient-capability=CAP_SYS_MODULE",),
    "ambient of an init": ("--ambient-capability=CAP_CHOWN", "--boot"),
    "all ambient": ("--ambient-capability=all",),
    "no such personality": ("--personality=vax",),
    "a score beyond": ("--oom-score-adjust=1001",),
    "no such limit": ("--rlimit=NOTHING=1",),
}


def ended(command):
    return subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="call numbers of x86-64")
@pytest.mark.parametrize("case", CASES)
def test_a_payload_finds_the_same(tree, machine, case):
    options = CASES[case]
    command = (*options, "--pipe", "--", "/bin/sh", "-c", LOOK)
    theirs = ended(inside.nspawn(tree, machine, *command))
    assert theirs.returncode == 0, theirs
    ours = ended(inside.pymachine(tree, machine, "run", *command))
    assert ours.returncode == 0, ours
    assert ours.stdout.splitlines() == theirs.stdout.splitlines()


@pytest.mark.parametrize("case", REFUSED)
def test_the_same_is_refused(tree, machine, case):
    options = REFUSED[case]
    verb, rest = ("boot", options[:-1]) if options[-1] == "--boot" else ("run", (*options, "true"))
    theirs = ended(inside.nspawn(tree, machine, *options, *(("true",) if verb == "run" else ())))
    ours = ended(inside.pymachine(tree, machine, verb, *rest))
    assert theirs.returncode != 0
    assert (ours.returncode, ours.stdout) in ((1, ""), (2, "")), ours
    assert ours.stderr.startswith("pymachine: "), ours
