"""`machinectl start` and systemd-nspawn@.service, with our drop-in, start machines of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.plan.link_names import short_name
from machinectl_py.runtime.state import find_running
from tests.conftest import REPOSITORY
from tests.hosts.apart import systemd_runs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not systemd_runs(), reason="needs systemd as PID 1"
)


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def unit(tree, machine):
    """The unit of a machine with its image in place, and the packaged drop-in in use."""
    image, instance = Path(f"/var/lib/machines/{machine}"), f"systemd-nspawn@{machine}.service"
    name = "systemd-nspawn@.service.d/pymachine.conf"
    packaged = Path(REPOSITORY, "units", name).read_text()
    assert "ExecStart=/usr/bin/pymachine " in packaged
    drop_in = Path("/run/systemd/system", name)
    drop_in.parent.mkdir()
    command = Path(REPOSITORY, "packaging/pymachine")
    # A second in the place of the three minutes of systemd's own unit.
    packaged += "WatchdogSec=1\n"
    drop_in.write_text(packaged.replace("=/usr/bin/pymachine", f"={command}"))
    image.mkdir(parents=True)
    run("mount", "--bind", str(tree), str(image))
    run("systemctl", "daemon-reload")
    yield instance
    subprocess.run(["systemctl", "stop", instance], check=False)
    subprocess.run(["systemctl", "reset-failed", "--quiet", instance], check=False)
    run("umount", str(image))
    image.rmdir()
    drop_in.unlink()
    drop_in.parent.rmdir()
    run("systemctl", "daemon-reload")


def state_of(unit):
    return run("systemctl", "show", unit, "--property=ActiveState,Result", "--value").split()


def test_machinectl_starts_reboots_and_stops_it(unit, machine, pymachine):
    run("machinectl", "start", machine)
    state = find_running(machine)
    assert (state.manager, state.unit, state.service) == ("unit", unit, "systemd-nspawn")
    assert state.uid_base > 0
    assert f"Unit={unit}\n" in run("machinectl", "show", machine)
    assert Path("/sys/class/net", short_name(f"ve-{machine}")).exists()
    wait_for(lambda: pymachine("show", machine, "-p", "Ready", "--value").stdout == "yes\n")
    assert pymachine("exec", machine, "--", "systemd-detect-virt").stdout == "systemd-nspawn\n"
    run("machinectl", "reboot", machine)
    wait_for(lambda: (now := find_running(machine)) and now.leader not in (0, state.leader))
    wait_for(lambda: pymachine("show", machine, "-p", "Ready", "--value").stdout == "yes\n")
    run("machinectl", "poweroff", machine)
    wait_for(lambda: sorted(state_of(unit)) == ["inactive", "success"])
    wait_for(lambda: find_running(machine) is None)


def test_stopping_the_unit_stops_the_machine_in_order(unit, machine, pymachine):
    run("systemctl", "start", unit)
    wait_for(lambda: pymachine("show", machine, "-p", "Ready", "--value").stdout == "yes\n")
    run("systemctl", "stop", unit)
    assert sorted(state_of(unit)) == ["inactive", "success"]
    assert find_running(machine) is None
    assert not Path("/sys/class/net", short_name(f"ve-{machine}")).exists()


def test_the_watchdog_of_the_unit_is_answered_and_ends_what_hangs(unit, machine, pymachine):
    run("systemctl", "start", unit)
    wait_for(lambda: pymachine("show", machine, "-p", "Ready", "--value").stdout == "yes\n")
    time.sleep(2.5)
    assert sorted(state_of(unit)) == ["active", "success"]
    assert run("systemctl", "show", unit, "--property=NRestarts", "--value") == "0\n"
    os.kill(find_running(machine).supervisor, signal.SIGSTOP)
    wait_for(lambda: "watchdog" in state_of(unit))
    wait_for(lambda: "failed" in state_of(unit))
    assert pymachine("list", "--no-legend").stdout.count(machine) == 0
    assert not Path(f"/run/pymachine/machines/{machine}").exists()
