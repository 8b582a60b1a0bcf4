"""Machines live through restarts of what manages them: systemd, systemd-machined, the bus."""

from __future__ import annotations

import os
import subprocess

import pytest

from machinectl_py.runtime.state import find_running, read_notify
from tests.hosts.apart import systemd_runs
from tests.waiting import PATIENCE, wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not systemd_runs(), reason="needs systemd"),
]

RESTARTS = (
    ("daemon-reexec",),
    ("daemon-reload",),
    ("restart", "systemd-machined"),
    ("restart", "dbus"),
)


def run(*command):
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done
    return done.stdout


def machinectl_lists():
    """Return the machines that machinectl lists, with their SERVICE.

    A restarted bus is there before machined is on it again, which `machinectl` tells as an error.
    """
    command = ("machinectl", "list", "--no-legend", "--no-pager")
    wait_for(lambda: subprocess.run(command, check=False, capture_output=True).returncode == 0)
    return {line.split()[0]: line.split()[2] for line in run(*command).splitlines()}


@pytest.fixture
def booted(pymachine, tree, machine):
    """A machine that is ready, in a scope of systemd's."""
    done = pymachine("boot", "-D", tree, "-M", machine)
    assert done.returncode == 0, done
    assert find_running(machine).registered
    return machine


@pytest.mark.parametrize("restart", RESTARTS, ids=" ".join)
def test_a_restart_loses_no_machine(pymachine, booted, restart):
    def works(*words):
        done = pymachine(*words)
        assert (done.returncode, done.stderr) == (0, ""), (restart, done)
        return done.stdout

    run("systemctl", *restart)
    assert booted in works("list")
    assert booted in works("status", booted)
    assert works("exec", booted, "--", "cat", "/proc/1/comm") == "systemd\n"
    assert machinectl_lists()[booted] == "pymachine"
    leader = find_running(booted).leader
    works("reboot", booted)
    assert find_running(booted).leader != leader
    assert machinectl_lists()[booted] == "pymachine"
    run("systemctl", *restart)
    works("poweroff", booted)
    assert booted not in machinectl_lists()


@pytest.mark.parametrize("restart", RESTARTS, ids=" ".join)
def test_starts_and_stops_while_it_restarts(pymachine, tree, machine, restart):
    """The limits to the starts of what is restarted are lifted.

    machined ends with each message bus, and is started by the next.
    """
    pause = "1" if "dbus" in restart else "0.05"
    script = f"systemctl $0; systemctl reset-failed dbus systemd-machined; sleep {pause}"
    loop = f"while test -e {tree}; do {script}; done"
    with subprocess.Popen(
        ["/bin/sh", "-c", loop, " ".join(restart)], stderr=subprocess.DEVNULL
    ) as restarting:
        try:
            for _ in range(10):
                booted = pymachine("boot", "-q", "-D", tree, "-M", machine)
                assert (booted.returncode, booted.stderr) == (0, ""), booted
                ended = pymachine("poweroff", machine)
                assert (ended.returncode, ended.stderr) == (0, ""), ended
        finally:
            restarting.terminate()
    assert machine not in machinectl_lists()


@pytest.fixture
def no_bus():
    """The message bus is stopped meanwhile; its socket stays where it was."""
    run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        yield
    finally:
        run("systemctl", "start", "dbus.socket")


def test_without_a_message_bus_nothing_begins(pymachine, tree, machine, no_bus):
    """As with systemd-nspawn, which cannot open the bus, and so ends before its payload begins."""
    for verb in (("run", "-M", machine), ("nspawn", "-M", machine, "-q")):
        done = pymachine(*verb, "-D", tree, "--", "/bin/touch", "/etc/has-run")
        assert (done.returncode, done.stdout) == (1, "")
        assert "the host's message bus does not run" in done.stderr
        assert done.stderr.count("\n") == 2  # with what to do
    assert not (tree / "etc/has-run").exists()
    assert find_running(machine) is None
    done = pymachine("run", "-D", tree, "-M", machine, "--register=no", "--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_what_cannot_be_registered_has_not_begun(pymachine, tree, machine, monkeypatch):
    """Nor if that shows only once the machine has been made."""
    monkeypatch.setenv("PYMACHINE_TEST_FAIL", "register-machine:5")
    done = pymachine("run", "-D", tree, "-M", machine, "--", "/bin/touch", "/etc/has-run")
    assert done.returncode == 1
    assert f"Failed to register {machine} with systemd-machined" in done.stderr
    assert not (tree / "etc/has-run").exists()
    assert find_running(machine) is None
    assert machine not in machinectl_lists()


def test_verbs_of_machinectl(pymachine, booted):
    state = find_running(booted)
    assert machinectl_lists()[booted] == "pymachine"
    shown = run("machinectl", "status", "--no-pager", booted)
    assert f"Leader: {state.leader} (systemd)" in shown
    assert f"Unit: {state.unit}" in shown
    assert run("machinectl", "show", booted, "-p", "Class", "--value") == "container\n"
    run("machinectl", "shell", booted, "/bin/true")

    run("machinectl", "reboot", booted)
    wait_for(lambda: find_running(booted).boots == 2 and read_notify(booted).ready)
    assert find_running(booted).supervisor == state.supervisor
    assert machinectl_lists()[booted] == "pymachine"

    run("machinectl", "poweroff", booted)
    wait_for(lambda: find_running(booted) is None)
    assert booted not in machinectl_lists()


def test_machinectl_terminates(pymachine, booted):
    run("machinectl", "terminate", booted)
    wait_for(lambda: find_running(booted) is None)
    assert booted not in machinectl_lists()
