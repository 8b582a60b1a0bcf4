"""Two starts at once, and starts whose processes are killed: one machine, or nothing at all."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.runtime.state import find_running, is_supervised
from tests.conftest import COMMAND
from tests.hosts.apart import descendants
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BOOT = 0.5  # seconds in which a boot is surely through
KILLS = 30
SEED = 20240229  # of the moments, so that a failure can be looked at again


def boot(tree, machine):
    return subprocess.Popen(
        [*COMMAND, "boot", "-q", "-D", tree, "-M", machine],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_of_two_starts_at_once_one_wins(pymachine, tree, machine):
    moments = random.Random(SEED)
    for number in range(20):
        first = boot(tree, machine)
        time.sleep(moments.choice((0, moments.uniform(0, 0.15))))
        second = boot(tree, machine)
        said = [process.communicate(timeout=60)[1] for process in (first, second)]
        codes = [first.returncode, second.returncode]
        assert sorted(codes) == [0, 1], (number, codes, said)
        assert said[codes.index(0)] == ""
        line, *hint = said[codes.index(1)].splitlines()
        assert line == f"pymachine: Machine '{machine}' is running already", (number, said)
        assert len(hint) <= 1
        assert find_running(machine).phase == "running"
        assert pymachine("terminate", machine).returncode == 0


def supervisors(launcher):
    """Return the PID of a launcher's supervisor in a list, empty before it is forked.

    It has a session of its own, which the children that try something of the kernel have not.
    """
    try:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return [pid for pid in map(int, children) if os.getsid(pid) == pid]
    except (FileNotFoundError, ProcessLookupError):
        return []


def be_rid_of(pymachine, machine):
    """Have the next verb remove all that is left, or see a whole machine; say which."""
    listed = pymachine("list", "--no-legend")
    assert (listed.returncode, listed.stderr) == (0, ""), listed
    runs = machine in listed.stdout
    if runs:
        shown = pymachine("exec", machine, "--", "cat", "/proc/1/comm")
        assert shown.stdout == "systemd\n", shown
        assert pymachine("terminate", machine).returncode == 0
    for place in ("machines", "locks"):
        assert not Path(f"/run/pymachine/{place}/{machine}").exists()
    return runs


def let_run(process, number, moments):
    """Wait for a random moment of the boot, every other time of one that a supervisor sees.

    So half of the kills hit a supervisor, however slow the machine is.
    """
    if number % 2:
        wait_for(lambda: supervisors(process.pid) or process.poll() is not None)
        time.sleep(moments.uniform(0, BOOT / 4))
    else:
        time.sleep(moments.uniform(0, BOOT))


@pytest.mark.parametrize("with_launcher", [False, True])
def test_a_killed_supervisor_leaves_nothing(pymachine, tree, machine, with_launcher):
    moments = random.Random(SEED + with_launcher)
    forked = 0
    for number in range(KILLS):
        process = boot(tree, machine)
        let_run(process, number, moments)
        supervisor, born = supervisors(process.pid), descendants(process.pid)
        for pid in [process.pid] * with_launcher + supervisor:
            # Its launcher being dead, a supervisor may have undone all, and be gone.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
        # What was ready when we came to it is no failed start.
        forked += bool(supervisor) and process.returncode != 0
        if not with_launcher and supervisor and process.returncode == 0:
            assert said == "", (number, said)
        elif not with_launcher and supervisor:
            assert process.returncode == 1, (number, process.returncode, said)
            assert said.startswith("pymachine: "), (number, said)
            assert len(said.splitlines()) <= 2, (number, said)
        if supervisor:  # nothing runs even if there is no next verb
            wait_for(lambda born=born: all(is_gone(pid) for pid in born))
            # Who was born just now, after we looked, holds the lock for a moment yet.
            wait_for(lambda: not is_supervised(machine))
        runs = be_rid_of(pymachine, machine)
        assert not (runs and supervisor), number
    assert forked > KILLS // 3


def test_a_killed_launcher_leaves_a_whole_machine_or_nothing(pymachine, tree, machine):
    moments = random.Random(SEED)
    ran = 0
    for number in range(KILLS):
        process = boot(tree, machine)
        if number == 0:  # a launcher that has told all that it had to
            wait_for(lambda: is_running(machine))
        elif number > 1:
            let_run(process, number, moments)
        process.kill()
        process.communicate(timeout=60)
        wait_for(lambda: not is_supervised(machine) or is_running(machine))
        ran += be_rid_of(pymachine, machine)
    assert 0 < ran < KILLS


@pytest.mark.parametrize("verb", ["reboot", "poweroff"])
def test_a_supervisor_killed_while_it_stops_leaves_nothing(pymachine, tree, machine, verb):
    """It is three programs in turn by then: what watches, what cleans up, what builds again."""
    moments = random.Random(SEED)
    for number in range(KILLS // 2):
        assert boot(tree, machine).communicate(timeout=60)[1] == ""
        state = find_running(machine)
        stopping = subprocess.Popen(
            [*COMMAND, verb, machine], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(moments.uniform(0, BOOT))
        born = descendants(state.supervisor)
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.supervisor, signal.SIGKILL)
        said = stopping.communicate(timeout=60)[1]
        assert len(said.splitlines()) <= 2, (number, said)
        assert "Traceback" not in said
        wait_for(lambda born=born: all(is_gone(pid) for pid in born))
        wait_for(lambda: not is_supervised(machine))
        assert not be_rid_of(pymachine, machine), number


def test_a_lock_that_was_left_alone_is_removed(pymachine, machine):
    locks = Path("/run/pymachine/locks")
    locks.mkdir(parents=True, exist_ok=True)
    Path(locks, machine).touch()
    assert pymachine("list", "--no-legend").stdout == ""
    assert not Path(locks, machine).exists()


def is_running(machine):
    state = find_running(machine)
    return state is not None and state.phase == "running"
