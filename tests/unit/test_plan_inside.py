"""What of the host a plan shows inside: devices, identity, passed descriptors."""

from __future__ import annotations

import os

import pytest

from machinectl_py.config.spec import MachineSpec, Payload, UsersSpec
from machinectl_py.plan import facts as facts_module
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.facts import DeviceNode, HostFacts
from machinectl_py.plan.steps.execute import ExecutePayload

NODES = (
    DeviceNode(name="null", mode=0o666, major=1, minor=3),
    DeviceNode(name="net/tun", mode=0o600, major=10, minor=200),
)
SPEC = MachineSpec(
    name="m",
    root="/srv/m",
    payload=Payload(kind="command", argv=("true",)),
    hostname="m",
    machine_id="0" * 32,
)
FACTS = HostFacts(
    manager="embedded",
    register=False,
    time_namespace=True,
    foreground=True,
    os_release="/etc/os-release",
    os_ids=(("id", "debian"), ("version_id", "12")),
    devices=NODES,
    can_make_devices=True,
    listen_fds=0,
    root_device=1,
    root_inode=2,
)


def names(spec=SPEC, facts=FACTS):
    return [step.name for step in build_plan(spec, facts).steps]


def environment(spec=SPEC, facts=FACTS):
    last = build_plan(spec, facts).steps[-1]
    assert isinstance(last, ExecutePayload)
    return dict(last.environment)


def test_nodes_are_made_where_they_can_be():
    assert "make-device-nodes" in names()
    assert not {"clone-device-nodes", "bind-device-nodes"} & set(names())


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        (SPEC, FACTS.replace(can_make_devices=False)),
        (SPEC.replace(users=UsersSpec(mode="pick")), FACTS),
    ],
    ids=["denied", "user namespace"],
)
def test_else_they_are_cloned_before_the_pivot_and_bound_after_it(spec, facts):
    found = names(spec, facts)
    assert "make-device-nodes" not in found
    places = [found.index(n) for n in ("clone-device-nodes", "pivot-root", "bind-device-nodes")]
    assert places == sorted(places)


def test_the_hosts_identity_is_told_and_may_be_overridden():
    assert environment()["container_host_version_id"] == "12"
    payload = SPEC.payload.replace(environment=(("container_host_id", "none"),))
    assert environment(SPEC.replace(payload=payload))["container_host_id"] == "none"


def test_a_locale_is_given_to_commands_only():
    assert environment()["LANG"] == "C.UTF-8"
    assert "LANG" not in environment(SPEC.replace(payload=Payload(kind="boot", argv=("init",))))


@pytest.mark.parametrize(("kind", "pid"), [("boot", "1"), ("command", "1"), ("as-pid2", "2")])
def test_passed_descriptors_are_told_to_who_gets_them(kind, pid):
    spec = SPEC.replace(payload=Payload(kind=kind, argv=("x",)))
    assert "LISTEN_FDS" not in environment(spec)
    found = environment(spec, FACTS.replace(listen_fds=3))
    assert (found["LISTEN_FDS"], found["LISTEN_PID"]) == ("3", pid)


def test_the_tunnel_becomes_a_slave_after_all_is_shared():
    assert names().index("open-tunnel") == names().index("share-mounts") + 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LISTEN_FDS": "2", "LISTEN_PID": "me"}, 2),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "1"}, 0),
        ({"LISTEN_FDS": "2"}, 0),
        ({"LISTEN_FDS": "-2", "LISTEN_PID": "me"}, 0),
        ({"LISTEN_FDS": "²", "LISTEN_PID": "me"}, 0),
        ({}, 0),
    ],
)
def test_descriptors_are_passed_to_us_by_our_own_pid(monkeypatch, variables, expected):
    for name in ("LISTEN_FDS", "LISTEN_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(os.getpid()) if value == "me" else value)
    assert facts_module._listen_fds() == expected


def test_the_ids_of_os_release(tmp_path):
    path = tmp_path / "os-release"
    path.write_text('# x\nNAME="Some Linux"\nID=some\nVERSION_ID="1.2"\nVARIANT_ID=\'server\'\n')
    ids = (("id", "some"), ("version_id", "1.2"), ("variant_id", "server"))
    assert facts_module._os_ids(str(path)) == ids
    assert facts_module._os_ids(str(tmp_path / "none")) == ()
