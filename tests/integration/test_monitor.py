"""`pymachine monitor` tells what happens to machines while it happens."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("leaves_nothing"),
]
PATIENCE = 20.0  # seconds


def _content(path):
    try:
        return path.read_text()
    except FileNotFoundError:  # closed meanwhile
        return ""


class Monitor:
    """A process that tells, and what it has told of one machine."""

    def __init__(self, machine, *words):
        self.machine = machine
        argv = [*COMMAND, "monitor", "--json=short", *words]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self._told = b""

    def until(self, **wanted):
        """Return the events up to the one that has these values."""
        found = []
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._line(deadline, found)
            event = json.loads(line)
            assert event["timestamp"] > 1_700_000_000_000_000
            if event["machine"] != self.machine:
                continue
            found.append(event)
            if all(event[key] == value for key, value in wanted.items()):
                return found

    def _line(self, deadline, found):
        fd = self.process.stdout.fileno()
        while b"\n" not in self._told:
            left = deadline - time.monotonic()
            assert select.select([fd], [], [], max(left, 0))[0], found
            self._told += os.read(fd, 1 << 16)
        line, _, self._told = self._told.partition(b"\n")
        return line

    def until_it_watches(self, machines):
        """Wait until it watches for machines that come, and for the end of those that run."""

        def watches():
            known = Path(f"/proc/{self.process.pid}/fdinfo").iterdir()
            told = "".join(_content(path) for path in known)
            return "inotify wd:" in told and told.count("tfd:") > machines  # proc_pid_fdinfo(5)

        wait_for(watches)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0


@pytest.fixture
def monitor(machine, pymachine):
    monitors = []

    def start(*words):
        monitors.append(Monitor(machine, *words))
        return monitors[-1]

    yield start
    for one in monitors:
        one.process.kill()
        one.process.wait()
        one.process.stdout.close()


def _states(events):
    return [event["state"] for event in events]


def test_the_life_of_a_machine_is_told(pymachine, tree, machine, monitor):
    seen = monitor(machine)
    seen.until_it_watches(machines=0)
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    events = seen.until(kind="changed", state="running", ready=True)
    assert events[0]["kind"] == "new"
    assert _states(events)[-1] == "running"
    leader = events[-1]["leader"]
    assert f"{leader}" == pymachine("show", machine, "-P", "Leader").stdout.strip()
    pymachine("reboot", machine, check=True)
    events = seen.until(state="running", ready=True, leader=leader_of(pymachine, machine))
    # "opening" lasts a few milliseconds, and may be over when the monitor looks.
    assert not all(event["ready"] for event in events)
    assert events[-1]["leader"] != leader
    pymachine("poweroff", machine, check=True)
    assert seen.until(kind="removed")[-1]["state"] == ""
    seen.end()


def leader_of(pymachine, machine):
    return int(pymachine("show", machine, "-P", "Leader").stdout)


def test_what_runs_already_comes_first_and_others_are_left_out(pymachine, tree, machine, monitor):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    first = monitor().until(kind="new")[-1]
    assert (first["state"], first["ready"]) == ("running", True)
    other, late = monitor("some-other"), monitor("--no-initial")
    late.until_it_watches(machines=1)
    other.until_it_watches(machines=1)
    pymachine("terminate", machine, check=True)
    assert late.until(kind="removed")[0]["kind"] != "new"
    other.process.send_signal(signal.SIGINT)
    assert other.process.communicate(timeout=PATIENCE)[0] == b""
    assert other.process.returncode == 0


def test_a_killed_supervisor_is_told_and_cleaned_up_after(pymachine, tree, machine, monitor):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    seen = monitor()
    seen.until(kind="new")
    os.kill(int(pymachine("show", machine, "-P", "Supervisor").stdout), signal.SIGKILL)
    seen.until(kind="removed")
    assert not os.path.exists(f"/run/pymachine/machines/{machine}")
