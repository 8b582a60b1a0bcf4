"""The D-Bus API, as busctl(1) and other users of the bus see it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hosts.apart import systemd_runs
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not systemd_runs(), reason="needs systemd and its bus"),
]
NAME, ROOT = "org.pymachine1", "/org/pymachine1"
MANAGER, MACHINE = f"{NAME}.Manager", f"{NAME}.Machine"
PATIENCE = 30.0  # seconds
UNIT = Path("/run/systemd/system/pymachine.service")


def run(*command, status=0):
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def service():
    """The API as installed, but of this source tree, ending when idle for two seconds."""
    text = (REPOSITORY / "units/pymachine.service").read_text()
    command = f"/usr/bin/python3 -SI {REPOSITORY}/packaging/pymachine service --exit-idle-time=2"
    UNIT.write_text(text.replace("/usr/bin/pymachine service", command))
    placed = [UNIT]
    for kind, directory in (("service", "system-services"), ("conf", "system.d")):
        place = Path(f"/usr/share/dbus-1/{directory}/{NAME}.{kind}")
        place.write_bytes((REPOSITORY / f"units/dbus/{NAME}.{kind}").read_bytes())
        placed.append(place)
    _reload()
    yield
    run("systemctl", "stop", "pymachine.service")
    for place in placed:
        place.unlink()
    _reload()


def _reload():
    run("systemctl", "daemon-reload")
    run("busctl", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig")


def call(path, interface, member, *arguments):
    told = run("busctl", "--json=short", "call", NAME, path, interface, member, *arguments)
    return json.loads(told)["data"] if told else None


def get(path, name):
    return json.loads(run("busctl", "--json=short", "get-property", NAME, path, MACHINE, name))


def refused(path, interface, member, *arguments):
    return run("busctl", "call", "--", NAME, path, interface, member, *arguments, status=1)


@pytest.fixture
def booted(service, pymachine, tree, machine):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    return machine


def path_of(machine):
    return call(ROOT, MANAGER, "GetMachine", "s", machine)[0]


def test_the_bus_starts_it_and_it_ends_when_idle(service):
    run("systemctl", "stop", "pymachine.service")
    assert call(ROOT, MANAGER, "ListMachines") == [[]]
    assert run("systemctl", "is-active", "pymachine.service") == "active\n"
    deadline = time.monotonic() + PATIENCE
    while (
        subprocess.run(
            ["systemctl", "--quiet", "is-active", "pymachine.service"], check=False
        ).returncode
        == 0
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert run("systemctl", "show", "-P", "Result", "pymachine.service") == "success\n"


def test_machines_are_listed_with_all_properties(booted, pymachine):
    path = path_of(booted)
    assert call(ROOT, MANAGER, "ListMachines")[0] == [[booted, "container", "pymachine", path]]
    shown = json.loads(pymachine("show", booted, "--json=short").stdout)[0]
    told = call(path, "org.freedesktop.DBus.Properties", "GetAll", "s", MACHINE)[0]
    assert told.keys() == shown.keys()
    changing = ("UptimeUSec", "TasksCurrent")
    for name in set(shown) - set(changing):
        assert told[name]["data"] == shown[name], name
        assert get(path, name) == told[name]
    leader = shown["Leader"]
    assert call(ROOT, MANAGER, "GetMachineByPID", "u", str(leader)) == [path]
    run("busctl", "introspect", NAME, path)
    assert path in run("busctl", "tree", "--list", NAME)


def listens(watcher):
    """Say whether `busctl monitor` tells a signal sent to it; of itself it does not say so."""
    run("busctl", "emit", "/ping", "org.pymachine.Test", "Ping")
    return select.select([watcher.stdout], [], [], 0.1)[0]


def next_signal(watcher):
    while (event := json.loads(watcher.stdout.readline()))["member"] == "Ping":
        pass
    return event


def test_signals_tell_what_happens(service, pymachine, tree, machine):
    call(ROOT, MANAGER, "ListMachines")
    matches = (f"type='signal',sender='{NAME}'", "type='signal',interface='org.pymachine.Test'")
    watcher = subprocess.Popen(
        ["busctl", "--json=short", "monitor", *(f"--match={match}" for match in matches)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: listens(watcher))
        pymachine("boot", "-D", tree, "-M", machine, check=True)
        told = next_signal(watcher)
        assert (told["member"], told["payload"]["data"][0]) == ("MachineNew", machine)
        path = told["payload"]["data"][1]
        ready = False
        while not ready:
            event = next_signal(watcher)
            assert (event["path"], event["member"]) == (path, "PropertiesChanged")
            ready = event["payload"]["data"][1]["Ready"]["data"]
        call(path, MACHINE, "Terminate")
        while (event := next_signal(watcher))["member"] != "MachineRemoved":
            pass
        assert event["payload"]["data"] == [machine, path]
    finally:
        watcher.kill()
        watcher.communicate()


def test_machines_are_started_and_stopped(service, pymachine, tree, machine):
    place = Path(f"/var/lib/machines/{machine}")
    place.symlink_to(tree)
    try:
        path = call(ROOT, MANAGER, "BootMachine", "s", machine)[0]
        leader = get(path, "Leader")["data"]
        call(path, MACHINE, "Reboot")
        assert get(path, "Leader")["data"] != leader
        call(ROOT, MANAGER, "KillMachine", "ssi", machine, "all", "23")  # SIGURG
        call(ROOT, MANAGER, "PowerOffMachine", "s", machine)
        assert call(ROOT, MANAGER, "ListMachines") == [[]]
    finally:
        place.unlink()


@pytest.fixture
def placed(tree, machine):
    """A tree where machines are found by name."""
    place = Path(f"/var/lib/machines/{machine}")
    place.symlink_to(tree)
    yield machine
    place.unlink()


def test_a_machine_is_started_with_settings_and_its_network_listed(service, pymachine, placed):
    pymachine("network", "create", "buslab", "--ipv4=10.9.77.1/24", "--ipv6=no", check=True)
    try:
        network = ["buslab", "pm-buslab", "10.9.77.1/24", "", True]
        assert call(ROOT, MANAGER, "ListNetworks") == [[[*network, []]]]
        settings = ("hostname", "by-bus", "network", "buslab", "network", "default")
        call(ROOT, MANAGER, "BootMachineWithSettings", "sa(ss)", placed, "3", *settings)
        done = pymachine("exec", placed, "--", "hostname")
        assert done.stdout == "by-bus\n"
        listed = call(ROOT, MANAGER, "ListNetworks")[0]
        assert [*network, [placed]] in listed
        assert [(one[0], one[5]) for one in listed if one[0] == "default"] == [
            ("default", [placed])
        ]
        call(ROOT, MANAGER, "TerminateMachine", "s", placed)
    finally:
        for name in ("buslab", "default"):
            pymachine("network", "delete", name)


def test_settings_say_neither_another_root_nor_what_is_none(service, placed):
    for name, text in (("directory", "/"), ("image", "/dev/sda"), ("-D", "/"), ("no-wait", "yes")):
        said = refused(ROOT, MANAGER, "BootMachineWithSettings", "sa(ss)", placed, "1", name, text)
        assert f"There is no setting '{name}'" in said
    bad = ("hostname", "a b")
    said = refused(ROOT, MANAGER, "BootMachineWithSettings", "sa(ss)", placed, "1", *bad)
    assert "--hostname=a b: expected" in said
    assert call(ROOT, MANAGER, "ListMachines") == [[]]


def test_images_are_listed(service, placed, pymachine):
    shown = json.loads(pymachine("images", "--json=short").stdout)
    told = call(ROOT, MANAGER, "ListImages")[0]
    assert [one[0] for one in told] == [one["name"] for one in shown]
    assert placed in [one[0] for one in told]


def test_errors_are_the_verbs(service):
    assert "no-such" in refused(ROOT, MANAGER, "BootMachine", "s", "no-such")
    assert "No machine 'no-such'" in refused(ROOT, MANAGER, "GetMachine", "s", "no-such")
    assert "no valid" in refused(ROOT, MANAGER, "BootMachine", "s", "--help")
    assert "no machine" in refused(ROOT, MANAGER, "GetMachineByPID", "u", "1")
    assert "has no method" in refused(ROOT, MANAGER, "Nonsense")
    assert "has no method" in refused(ROOT, MANAGER, "GetMachine", "u", "1")
    assert "no object" in refused(f"{ROOT}/other", MANAGER, "ListMachines")
    assert "cannot be set" in run(
        "busctl", "set-property", NAME, ROOT, MANAGER, "Version", "s", "9", status=1
    )


def test_who_is_not_root_may_look_but_not_touch(booted):
    path = path_of(booted)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "busctl", "call", NAME)
    assert booted in run(*nobody, ROOT, MANAGER, "ListMachines")
    assert "Access denied" in run(*nobody, path, MACHINE, "Terminate", status=1)
    assert booted in run(*nobody, ROOT, MANAGER, "ListMachines")


def test_whom_polkit_lets_may_touch(booted):
    action = Path(f"/usr/share/polkit-1/actions/{NAME}.policy")
    action.write_bytes((REPOSITORY / f"units/dbus/{NAME}.policy").read_bytes())
    rule = Path("/etc/polkit-1/rules.d/50-pymachine-test.rules")
    rule.write_text(
        "polkit.addRule(function(action, subject) {\n"
        f'  if (action.id == "{NAME}.manage-machines" && subject.user == "nobody")\n'
        "    return polkit.Result.YES;\n"
        "});\n"
    )
    try:
        run("systemctl", "restart", "polkit.service")
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        # Which is no leave to give a machine what is the host's.
        words = ("BootMachineWithSettings", "sa(ss)", booted, "1", "bind", "/etc")
        done = run(*nobody, "busctl", "call", NAME, ROOT, MANAGER, *words, status=1)
        assert "Access denied" in done
        run(*nobody, "busctl", "call", NAME, path_of(booted), MACHINE, "Terminate")
        assert call(ROOT, MANAGER, "ListMachines") == [[]]
    finally:
        action.unlink()
        rule.unlink()
        run("systemctl", "restart", "polkit.service")
