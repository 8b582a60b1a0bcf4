"""The device nodes of a machine can be used, whatever its host is denied."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosts.apart import systemd_runs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Each node is opened and does what it is for; told is how many mounts are on /dev/null.
USE = """
set -e
echo x >/dev/null
test "$(head -c 3 /dev/zero | tr '\\0' z)" = zzz
test "$(head -c 9 /dev/random | wc -c)" = 9
test "$(head -c 9 /dev/urandom | wc -c)" = 9
if (echo x >/dev/full) 2>/dev/null; then exit 1; fi
for number in 1:3 1:5 1:7 1:8 1:9 5:0; do test -c /dev/char/$number; done
test /dev/null -ef /dev/char/1:3
test "$(readlink /dev/fd)" = /proc/self/fd
grep -c ' /dev/null ' /proc/self/mountinfo || true
"""
MADE, SHOWN = "0\n", "1\n"


def use(pymachine, root, machine, before=()):
    """Use the nodes in a machine that is started by way of the command `before`."""
    command = pymachine.command("run", "--pipe", "-D", root, "-M", machine, "--", "sh", "-c", USE)
    done = subprocess.run(
        [*before, *command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done
    return done.stdout


def test_nodes_are_made(pymachine, tree, machine):
    assert use(pymachine, tree, machine) == MADE


def test_without_mknod_the_hosts_nodes_are_shown(pymachine, tree, machine):
    without = ("setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod")
    assert use(pymachine, tree, machine, without) == SHOWN


def test_without_mknod_a_machine_boots(pymachine, tree, machine):
    command = pymachine.command("boot", "-D", tree, "-M", machine)
    subprocess.run(["setpriv", "--bounding-set=-mknod", *command], check=True)
    failed = pymachine("exec", machine, "--", "systemctl", "--failed", "--plain", "--no-legend")
    assert failed.stdout == ""
    pymachine("reboot", machine, check=True)
    assert pymachine("exec", machine, "--", "sh", "-c", USE).stdout == SHOWN


def test_the_plan_says_so(pymachine, tree, machine):
    command = pymachine.command("plan", "--json=short", "-D", tree, "-M", machine)
    for before, expected in (
        ([], "make-device-nodes"),
        (["setpriv", "--bounding-set=-mknod"], "bind-device-nodes"),
    ):
        shown = subprocess.run([*before, *command], check=True, capture_output=True)
        names = {step["name"] for step in json.loads(shown.stdout)}
        assert names & {"make-device-nodes", "bind-device-nodes"} == {expected}


@contextmanager
def cgroup_that_denies(*what):
    """A v1 device cgroup in which the host's nodes can be used, but `what` is denied."""
    root = Path("/sys/fs/cgroup/devices")
    group = root / f"pymachine-tests-{os.getpid()}"
    group.mkdir()
    try:
        for rule in what:
            (group / "devices.deny").write_text(rule)
        yield f'echo $$ >{group}/cgroup.procs; exec "$@"'
    finally:
        group.rmdir()


@pytest.mark.skipif(
    systemd_runs() or not Path("/sys/fs/cgroup/devices/devices.deny").exists(),
    reason="needs a v1 device cgroup of our own",
)
@pytest.mark.parametrize("what", ["c *:* m", "c 10:200 m"], ids=["any", "of-tun"])
def test_where_mknod_is_denied_by_a_cgroup_the_hosts_nodes_are_shown(
    pymachine, tree, machine, what
):
    with cgroup_that_denies(what) as enter:
        assert use(pymachine, tree, machine, ("sh", "-c", enter, "sh")) == SHOWN
