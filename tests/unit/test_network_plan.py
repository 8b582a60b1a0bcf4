"""What the planner makes of a machine's network, for hosts that we do not have."""

from __future__ import annotations

import pytest

from machinectl_py.config.spec import MachineSpec, NetworkPair, NetworkSpec, Payload, UsersSpec
from machinectl_py.errors import ConfigError, DeniedError, NotFoundError
from machinectl_py.kernel import const
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.facts import HostFacts
from machinectl_py.plan.host_files import HostFiles
from machinectl_py.plan.link_names import (
    HOST_KEY,
    INSIDE_KEY,
    MACVLAN_KEY,
    short_name,
    stable_address,
)
from machinectl_py.plan.network_facts import NetworkFacts
from machinectl_py.plan.siphash import siphash24
from machinectl_py.plan.steps.birth import ClonePayload

HOST_ID = "0123456789abcdef0123456789abcdef"
FACTS = HostFacts(
    manager="embedded",
    register=False,
    time_namespace=True,
    foreground=True,
    os_release="/etc/os-release",
    os_ids=(("id", "debian"),),
    devices=(),
    can_make_devices=True,
    listen_fds=0,
    root_device=1,
    root_inode=2,
    files=HostFiles(machine_id=HOST_ID),
)


def spec(network, **changes):
    fields = {
        "name": "m",
        "root": "/srv/m",
        "payload": Payload(kind="command", argv=("true",)),
        "hostname": "m",
        "machine_id": "0" * 32,
        "network": network,
    }
    return MachineSpec(**(fields | changes))


def labels(network, **changes):
    return [step.label() for step in build_plan(spec(network, **changes), FACTS).steps]


def private(**changes):
    return NetworkSpec(kind="private", **changes)


def test_the_hash_is_that_of_its_inventors():
    """Aumasson and Bernstein, "SipHash: a fast short-input PRF", appendix A."""
    assert siphash24(bytes(range(15)), bytes(range(16))) == 0xA129CA6149BE45E5


def test_an_address_is_of_local_assignment_and_of_no_group():
    for key in (HOST_KEY, INSIDE_KEY, MACVLAN_KEY):
        for index in range(40):
            first = int(stable_address(HOST_ID, "m", key, index)[:2], 16)
            assert first & 0b11 == 0b10


def test_an_address_depends_on_host_machine_kind_and_number():
    made = {
        stable_address(HOST_ID, "m", HOST_KEY),
        stable_address(HOST_ID[::-1], "m", HOST_KEY),
        stable_address(HOST_ID, "n", HOST_KEY),
        stable_address(HOST_ID, "m", INSIDE_KEY),
        stable_address(HOST_ID, "m", HOST_KEY, 1),
    }
    assert len(made) == 5
    assert stable_address(HOST_ID, "m", HOST_KEY) == stable_address(HOST_ID, "m", HOST_KEY)


def test_a_host_without_an_id_leaves_addresses_to_the_kernel():
    assert stable_address("", "m", HOST_KEY) == ""


@pytest.mark.parametrize("name", ["ve-m", "ve-123456789012"])
def test_a_name_that_fits_stays(name):
    assert short_name(name) == name


def test_long_names_with_one_beginning_stay_apart():
    made = {short_name(f"ve-a-long-name-{number}") for number in range(100)}
    assert len(made) == 100
    assert all(len(name) == 15 and name.startswith("ve-a-long-n") for name in made)


def test_the_host_s_network_takes_no_step():
    host = labels(NetworkSpec())
    assert not any(word in label for label in host for word in ("-link", "veth", "network"))


def test_links_are_made_after_the_birth_and_awaited_before_the_payload():
    network = private(
        veth=True,
        zone="z",
        interfaces=(NetworkPair(host="eth1", inside="lan"),),
        macvlan=(NetworkPair(host="eth0", inside="mv-eth0"),),
    )
    made = labels(network)
    order = [
        *("clone-payload", "hold-network", "move-link eth1", "make-zone", "add-veth vb-m"),
        *("add-child-link mv-eth0", "await-links"),
    ]
    assert [label for label in made if label in order] == order


def test_a_user_namespace_owns_the_network_namespace():
    plan = build_plan(spec(private(veth=True), users=UsersSpec(mode="pick")), FACTS)
    (birth,) = (step for step in plan.steps if isinstance(step, ClonePayload))
    assert birth.flags & const.CLONE_NEWUSER
    assert birth.flags & const.CLONE_NEWNET


def test_an_existing_namespace_is_joined_for_the_birth_alone():
    made = labels(NetworkSpec(kind="path", namespace_path="/run/netns/x"))
    at = made.index("clone-payload")
    assert made[at - 1] == "join-network"
    assert made[at + 1] == "leave-network"
    assert "loopback-up" not in made


@pytest.mark.parametrize(
    ("network", "facts", "error"),
    [
        (private(veth=True, bridge="br0"), NetworkFacts(missing=("br0",)), NotFoundError),
        (NetworkSpec(kind="path"), NetworkFacts(namespace="missing"), NotFoundError),
        (NetworkSpec(kind="path"), NetworkFacts(namespace="hidden"), DeniedError),
        (NetworkSpec(kind="path"), NetworkFacts(namespace="other"), ConfigError),
        (
            private(veth=True, interfaces=(NetworkPair(host="eth0", inside="host0"),)),
            NetworkFacts(),
            ConfigError,
        ),
        (
            private(
                macvlan=(NetworkPair(host="eth0", inside="a"),),
                ipvlan=(NetworkPair(host="eth0", inside="b"),),
            ),
            NetworkFacts(),
            ConfigError,
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_touched(network, facts, error):
    with pytest.raises(error):
        build_plan(spec(network), FACTS.replace(network=facts))
