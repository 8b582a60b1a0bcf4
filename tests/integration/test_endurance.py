"""Machines that stop, start and reboot again and again: each time as the first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.runtime.state import find_running, read_notify
from tests.conftest import REPOSITORY
from tests.hosts.apart import systemd_runs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_systemd = pytest.mark.skipif(not systemd_runs(), reason="needs systemd")

# A boot takes 0.3 to 0.5 s and a poweroff as long: a hundred of each are most of a minute. By
# unit a reboot waits for RestartSec= as well; what could go wrong there shows within twenty, as
# systemd gives up after five starts in ten seconds unless told otherwise.
TIMES, UNIT_TIMES = 100, 20

managers = pytest.mark.parametrize(
    "manager", ["embedded", pytest.param("systemd", marks=needs_systemd)]
)


def run(*command):
    """Run a command that must succeed and say nothing on its standard error."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def leader_when_ready(machine, *, but=0):
    """Return the PID 1 of a machine once it is ready and not the one before."""
    found = []

    def ready():
        state = find_running(machine)
        if state is None or state.leader == but or not read_notify(machine).ready:
            return False
        found.append(state.leader)
        return True

    wait_for(ready)
    return found[0]


@managers
def test_a_hundred_starts_and_stops(pymachine, tree, machine, manager):
    boot = ("boot", "-q", "-D", tree, "-M", machine, f"--cgroup-manager={manager}")
    leaders = set()
    for number in range(TIMES):
        booted = pymachine(*boot)
        assert (booted.returncode, booted.stderr) == (0, ""), (number, booted)
        leaders.add(leader_when_ready(machine))
        ended = pymachine("poweroff", machine)
        assert (ended.returncode, ended.stderr) == (0, ""), (number, ended)
        assert find_running(machine) is None
    assert len(leaders) == TIMES


@managers
def test_a_hundred_reboots_by_verb_and_from_inside(pymachine, tree, machine, manager):
    pymachine("boot", "-D", tree, "-M", machine, f"--cgroup-manager={manager}", check=True)
    supervisor, leader = find_running(machine).supervisor, leader_when_ready(machine)
    for number in range(TIMES):
        if number % 2:
            by_verb = pymachine("reboot", machine)
            assert (by_verb.returncode, by_verb.stderr) == (0, ""), (number, by_verb)
            before, leader = leader, find_running(machine).leader
            assert leader != before
        else:
            pymachine("exec", machine, "--", "systemctl", "reboot")
            leader = leader_when_ready(machine, but=leader)
    state = find_running(machine)
    assert (state.boots, state.supervisor) == (TIMES + 1, supervisor)
    assert pymachine("poweroff", machine).returncode == 0


def test_the_trace_of_a_reboot_keeps_the_steps_that_stand(pymachine, tree, machine):
    def steps():
        return json.loads(pymachine("trace", machine, "--json=short").stdout)["steps"]

    pymachine("boot", "-D", tree, "-M", machine, check=True)
    first = steps()
    assert not any(step["standing"] for step in first)
    for _ in range(2):
        assert pymachine("reboot", machine).returncode == 0
    again = steps()
    assert [step["index"] for step in again] == [step["index"] for step in first]
    standing = {step["name"] for step in again if step["standing"]}
    assert {"lock-machine", "lock-root", "start-supervisor"} < standing
    assert not standing & {"clone-payload", "register-machine", "execute-payload"}
    kept = [step | {"standing": False} for step in again if step["standing"]]
    assert kept == [step for step in first if step["name"] in standing]
    # What was done anew was done after all that was done before.
    ended = max(step["start"] + step["duration"] for step in first)
    assert all(step["start"] > ended for step in again if not step["standing"])
    table = pymachine("trace", machine).stdout.splitlines()
    assert sum("   standing " in line for line in table) == len(standing)
    assert float(table[-1].split()[2]) < 60_000  # READY=1 is counted from this boot
    assert pymachine("terminate", machine).returncode == 0


@pytest.fixture
def unit(tree, machine):
    """The packaged unit, run from the source tree, for one machine with its image in place."""
    image, instance = Path(f"/var/lib/machines/{machine}"), f"pymachine@{machine}.service"
    packaged = Path(REPOSITORY, "units/pymachine@.service").read_text()
    command = Path(REPOSITORY, "packaging/pymachine")
    template = Path("/run/systemd/system/pymachine@.service")
    assert "ExecStart=/usr/bin/pymachine " in packaged
    template.write_text(packaged.replace("=/usr/bin/pymachine", f"={command}"))
    image.mkdir(parents=True)
    run("mount", "--bind", str(tree), str(image))
    run("systemctl", "daemon-reload")
    yield instance
    subprocess.run(["systemctl", "stop", instance], check=False)
    subprocess.run(["systemctl", "reset-failed", "--quiet", instance], check=False)
    run("umount", str(image))
    image.rmdir()
    template.unlink()
    run("systemctl", "daemon-reload")


def unit_property(unit, name):
    return run("systemctl", "show", unit, "--property", name, "--value").strip()


@needs_systemd
def test_starts_stops_and_restarts_of_a_unit(unit, machine):
    for _ in range(UNIT_TIMES // 2):
        run("systemctl", "start", unit)
        state = find_running(machine)
        assert (state.manager, state.unit) == ("unit", unit)
        assert unit_property(unit, "MainPID") == str(state.supervisor)
        run("systemctl", "stop", unit)
        assert find_running(machine) is None
        assert unit_property(unit, "Result") == "success"
    run("systemctl", "start", unit)
    leader = leader_when_ready(machine)
    for _ in range(UNIT_TIMES // 2):
        run("systemctl", "restart", unit)
        leader = leader_when_ready(machine, but=leader)
    run("systemctl", "stop", unit)


@needs_systemd
def test_the_watchdog_of_a_unit_is_answered_over_a_reboot(pymachine, unit, machine):
    drop_in = Path(f"/run/systemd/system/{unit}.d/watchdog.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=1\n")
    try:
        run("systemctl", "daemon-reload")
        run("systemctl", "start", unit)
        leader = leader_when_ready(machine)
        time.sleep(2.5)
        assert leader_when_ready(machine) == leader
        assert pymachine("reboot", machine).returncode == 0
        leader = leader_when_ready(machine, but=leader)
        time.sleep(2.5)
        assert leader_when_ready(machine) == leader
        os.kill(find_running(machine).supervisor, signal.SIGSTOP)
        wait_for(lambda: unit_property(unit, "Result") == "watchdog")
        wait_for(lambda: unit_property(unit, "ActiveState") == "failed")
        assert find_running(machine) is None
    finally:
        drop_in.unlink()
        drop_in.parent.rmdir()
        run("systemctl", "daemon-reload")


@needs_systemd
def test_reboots_of_a_unit_by_verb_and_from_inside(pymachine, unit, machine):
    run("systemctl", "start", unit)
    leader = leader_when_ready(machine)
    for number in range(UNIT_TIMES):
        if number % 2:
            by_verb = pymachine("reboot", machine)
            assert (by_verb.returncode, by_verb.stderr) == (0, ""), (number, by_verb)
        else:
            pymachine("exec", machine, "--", "systemctl", "reboot")
        leader = leader_when_ready(machine, but=leader)
    assert unit_property(unit, "NRestarts") == str(UNIT_TIMES)
    assert pymachine("poweroff", machine).returncode == 0
    wait_for(lambda: unit_property(unit, "ActiveState") == "inactive")
    assert unit_property(unit, "Result") == "success"


@needs_systemd
def test_a_unit_whose_supervisor_was_killed_starts_again(unit, machine):
    for _ in range(3):
        run("systemctl", "start", unit)
        state = find_running(machine)
        os.kill(state.supervisor, signal.SIGKILL)
        wait_for(lambda: unit_property(unit, "ActiveState") == "failed")
        assert unit_property(unit, "Result") == "signal"
        wait_for(lambda leader=state.leader: not Path(f"/proc/{leader}").exists())
    run("systemctl", "start", unit)
    assert find_running(machine).boots == 1
    run("systemctl", "stop", unit)


@needs_systemd
def test_a_unit_is_stopped_while_it_starts(unit, machine):
    for number in range(UNIT_TIMES):
        run("systemctl", "start", "--no-block", unit)
        time.sleep(0.025 * number)
        run("systemctl", "stop", unit)
        assert unit_property(unit, "ActiveState") in ("inactive", "failed")
        assert unit_property(unit, "TasksCurrent") == "[not set]"
        assert find_running(machine) is None
