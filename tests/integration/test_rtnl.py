"""Our messages of rtnetlink, by what pyroute2 and ip(8) find that the kernel made of them."""

from __future__ import annotations

import json
import os

import pytest

from machinectl_py.kernel import rtnl
from machinectl_py.kernel.namespaces import InNetwork
from machinectl_py.thirdparty import need
from tests.integration.networks import network, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def here():
    """Be in a network namespace of our own."""
    with network() as found:
        found.ip("link set lo up")
        with InNetwork(found.path):
            yield found


@pytest.fixture
def there():
    """Another one."""
    with network() as found:
        yield found


def shown(side, *words: str) -> list[dict]:
    return json.loads(run(*side.enter("ip", "-details", "-json", *words)))


def link(side, name: str) -> dict:
    return shown(side, "link", "show", name)[0]


def test_a_pair_has_names_addresses_and_a_bridge(here, there):
    bridge = rtnl.add_bridge("br0", "02:00:00:00:00:0b")
    index = rtnl.add_veth(
        "here0",
        "02:00:00:00:00:01",
        peer="there0",
        peer_address="02:00:00:00:00:02",
        pid=there.pid,
        master=bridge,
    )
    near, far = link(here, "here0"), link(there, "there0")
    assert (near["ifindex"], near["address"], near["master"]) == (index, "02:00:00:00:00:01", "br0")
    assert near["linkinfo"]["info_kind"] == far["linkinfo"]["info_kind"] == "veth"
    assert "UP" in near["flags"]
    assert "UP" not in far["flags"]
    assert far["address"] == "02:00:00:00:00:02"
    assert link(here, "br0")["address"] == "02:00:00:00:00:0b"
    rtnl.delete_link(index)
    assert rtnl.get_link(index) is None
    assert [one["ifname"] for one in shown(there, "link")] == ["lo"]


def test_what_is_left_to_the_kernel_it_chooses(here, there):
    index = rtnl.add_veth("here0", "", peer="there0", peer_address="", pid=there.pid)
    assert "UP" not in link(here, "here0")["flags"]
    assert link(here, "here0")["address"] == rtnl.get_link(index).address


def test_links_are_listed_as_pyroute2_lists_them(here, there):
    rtnl.add_bridge("br0")
    rtnl.add_veth("here0", "", peer="there0", peer_address="", pid=there.pid, master=2)
    with need("pyroute2").IPRoute() as route:
        expected = {
            (
                message["index"],
                message.get_attr("IFLA_IFNAME"),
                (message.get_attr("IFLA_LINKINFO") or {}).get("attrs", [("", "")])[0][1],
                message.get_attr("IFLA_ADDRESS"),
                message.get_attr("IFLA_LINK") or 0,
                message.get_attr("IFLA_MASTER") or 0,
            )
            for message in route.get_links()
        }
    found = {(o.index, o.name, o.kind, o.address, o.peer, o.master) for o in rtnl.links()}
    assert found == expected
    assert len(found) == 3
    send = "import socket as s; s.socket(2, 2).sendto(bytes(1000), ('127.0.0.1', 9))"
    run(*here.enter("/usr/bin/python3", "-c", send))
    with need("pyroute2").IPRoute() as route:
        counted = {one["index"]: one.get_attr("IFLA_STATS64") for one in route.get_links()}
    loopback = next(one for one in rtnl.traffic() if one.name == "lo")
    assert loopback.counters.received_bytes == counted[1]["rx_bytes"] > 1000
    assert loopback.counters.sent_packets == counted[1]["tx_packets"] > 0
    assert loopback.counters.received_dropped == counted[1]["rx_dropped"]


def test_addresses_and_routes(here):
    index = rtnl.add_bridge("br0")
    here.ip("link set br0 up")
    for _ in range(2):  # again, it is there already
        rtnl.add_address(index, "10.1.2.3", 24)
        rtnl.add_address(index, "fd01::3", 64)
        rtnl.add_default_route(index, "10.1.2.1")
        rtnl.add_default_route(index, "fd01::1")
    told = {one["local"]: one for one in shown(here, "address", "show", "br0")[0]["addr_info"]}
    assert (told["10.1.2.3"]["prefixlen"], told["fd01::3"]["prefixlen"]) == (24, 64)
    assert told["fd01::3"]["nodad"]
    for family, gateway in (("-4", "10.1.2.1"), ("-6", "fd01::1")):
        (default,) = shown(here, family, "route", "show", "default")
        assert (default["gateway"], default["dev"], default["protocol"]) == (
            gateway,
            "br0",
            "static",
        )
    found = [(one.address, one.prefix) for one in rtnl.addresses()]
    assert found[:2] == [("10.1.2.3", 24), ("fd01::3", 64)]
    assert {"0.0.0.0/0", "10.1.2.0/24", "fd01::/64", "::/0"} <= set(rtnl.destinations())
    with need("pyroute2").IPRoute() as route:
        expected = set()
        for message in route.get_routes():
            none = "::" if message["family"] == 10 else "0.0.0.0"
            expected.add(f"{message.get_attr('RTA_DST') or none}/{message['dst_len']}")
    assert set(rtnl.destinations()) == expected


def test_a_link_has_a_further_name_and_moves(here, there):
    index = rtnl.add_bridge("br0")
    rtnl.add_alternative_name(index, "a-bridge-of-a-long-name")
    assert link(here, "br0")["altnames"] == ["a-bridge-of-a-long-name"]
    index = rtnl.add_veth("away0", "", peer="peer0", peer_address="", pid=os.getpid())
    with open(there.path) as namespace:
        rtnl.move_link(index, namespace.fileno(), "home0")
    assert rtnl.index_of("away0") == 0
    assert link(there, "home0")["linkinfo"]["info_kind"] == "veth"


def test_children_of_a_link(here, there):
    parent = rtnl.add_bridge("br0")
    for kind, mode in (("macvlan", "bridge"), ("ipvlan", "l2")):
        try:
            if kind == "macvlan":
                rtnl.add_macvlan("mv0", "02:00:00:00:00:05", parent=parent, pid=there.pid)
            else:
                rtnl.add_ipvlan("iv0", parent=parent, pid=there.pid)
        except OSError as error:
            pytest.skip(f"the kernel has no {kind}: {error}")
        info = link(there, f"{kind[0]}v0")["linkinfo"]
        assert (info["info_kind"], info["info_data"]["mode"]) == (kind, mode)
        run(*there.enter("ip", "link", "delete", f"{kind[0]}v0"))


def test_what_the_kernel_says_is_told(here):
    rtnl.add_bridge("br0")
    with pytest.raises(FileExistsError, match="RTM_NEWLINK: File exists"):
        rtnl.add_bridge("br0")
    with pytest.raises(OSError, match=r"Nexthop has invalid gateway|unreachable"):
        rtnl.add_default_route(rtnl.index_of("br0"), "10.1.2.1")
    with pytest.raises(OSError, match=r"RTM_NEWLINK.*Unknown device type|not supported"):
        rtnl._add("x0", "nonsense")
    assert rtnl.get_link(4711) is None


def test_hundreds_of_links_are_listed(here):
    for number in range(300):
        rtnl.add_bridge(f"br{number}")
    assert len(rtnl.links()) == 301
    assert len(rtnl.traffic()) == 301
