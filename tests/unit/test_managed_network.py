"""Managed networks: definitions, subnets, leases, rules and what dnsmasq is told."""

from __future__ import annotations

import pytest

from machinectl_py.config.managed_network import (
    ManagedNetwork,
    check_name,
    parse_definition,
    read_subnet_of,
    write_definition,
)
from machinectl_py.config.subnet import read_subnet
from machinectl_py.errors import ConfigError, ConflictError
from machinectl_py.plan.managed import dnsmasq, rules
from machinectl_py.plan.managed.leases import Lease, with_lease
from machinectl_py.plan.managed.members import Member, Members, Switch, Up
from machinectl_py.plan.managed.propose import propose_network

LAB = ManagedNetwork(name="lab", bridge="pm-lab", ipv4="10.1.2.1/24", ipv6="fd01::1/64")
SMALL = ManagedNetwork(name="small", bridge="pm-small", ipv4="10.1.2.1/29")
HOST_ID = "0123456789abcdef0123456789abcdef"


def up(network: ManagedNetwork) -> Up:
    return Up(namespace=1, network=network, mac="02:00:00:00:00:02")


def parse(text: str) -> ManagedNetwork:
    return parse_definition("lab", text.encode(), "/etc/lab.conf", "pm-lab")


@pytest.mark.parametrize("network", [LAB, SMALL.replace(name="lab", nat=False)])
def test_a_definition_is_read_as_it_was_written(network):
    assert parse(write_definition(network)) == network


def test_a_definition_by_hand():
    network = parse("# mine\n[Network]\nIPv6=fd01:0::0001/64\nNAT=no\n[X-Mine]\nNote=this\n")
    assert network == ManagedNetwork(name="lab", bridge="pm-lab", ipv6="fd01::1/64", nat=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[Network]\nIPv4=10.0.0.0/24", "2: IPv4=10.0.0.0/24: expected an address of a host"),
        ("[Network]\nIPv4=fd01::1/64", "of IPv4"),
        ("[Network]\nIPv4=10.0.0.1", "with a prefix of 8 to 29 bits"),
        ("[Network]\nIPv4=10.0.0.1/x", "ADDRESS/PREFIX"),
        ("[Network]\nIPv4=ten", "an IP address"),
        ("[Network]\nBridge=a-name-that-is-too-long", "Bridge="),
        ("[Network]\nMTU=1", "MTU= in .Network. is not known"),
        ("[Network]\nNAT=yes", "neither IPv4= nor IPv6="),
    ],
)
def test_a_definition_that_is_not_valid_is_told_with_its_line(text, says):
    with pytest.raises(ConfigError, match=says):
        parse(text)


@pytest.mark.parametrize("name", ["", "-a", "a-", "Lab", "a.b", "a/b", "a" * 64, "ä", "-"])
def test_names_are_labels_of_the_dns(name):
    with pytest.raises(ValueError, match="name of a network"):
        check_name(name)
    assert check_name("lab-2") == "lab-2"


def test_no_is_no_subnet():
    assert read_subnet_of(4, "no") == ""


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("10.1.2.1/24", "10.1.2.77/32", True),
        ("10.1.2.1/24", "10.0.0.0/8", True),
        ("10.1.2.1/24", "10.1.3.0/24", False),
        ("10.1.2.1/24", "fd01::/8", False),
        ("fd01::1/64", "fd01::/16", True),
    ],
)
def test_overlaps(one, other, both):
    assert read_subnet(one).overlaps(read_subnet(other)) is both
    assert read_subnet(other).overlaps(read_subnet(one)) is both


def test_two_who_propose_at_once_propose_the_same():
    first = propose_network("lab", HOST_ID, ())
    assert propose_network("lab", HOST_ID, ()) == first
    assert propose_network("other", HOST_ID, ()) != first
    assert read_subnet(first.ipv6).address >> 120 == 0xFD


def test_what_is_taken_is_passed_over():
    first = propose_network("lab", HOST_ID, ())
    taken = [read_subnet(first.ipv4), read_subnet(first.ipv6)]
    second = propose_network("lab", HOST_ID, taken)
    assert not any(a.overlaps(b) for a in taken for b in second.subnets())
    with pytest.raises(ConflictError, match="overlaps with"):
        propose_network("lab", HOST_ID, taken, ipv4=first.ipv4)
    with pytest.raises(ConflictError, match="No subnet of IPv4"):
        propose_network("lab", HOST_ID, [read_subnet("10.0.0.0/8")])


def test_a_lease_is_kept_and_nobody_else_gets_it():
    leases: tuple[Lease, ...] = ()
    numbers = {}
    for number in range(200):
        leases, numbers[number] = with_lease(leases, LAB, f"m{number}", number)
    assert len(set(numbers.values())) == 200
    assert with_lease(leases, LAB, "m7", 999)[1] == numbers[7]
    # Lost leases are mostly the same again, as numbers come from names.
    assert with_lease((), LAB, "m0", 0)[1] == numbers[0]


def test_when_a_network_is_full_the_one_least_recently_used_goes():
    leases: tuple[Lease, ...] = ()
    for number in range(5):  # .2 to .6
        leases, _ = with_lease(leases, SMALL, f"m{number}", number)
    assert {lease.number for lease in leases} == {2, 3, 4, 5, 6}
    oldest = next(lease.number for lease in leases if lease.machine == "m1")
    leases, found = with_lease(leases, SMALL, "new", 9, running=("m0",))
    assert found == oldest
    assert {lease.machine for lease in leases} == {"m0", "m2", "m3", "m4", "new"}
    running = [lease.machine for lease in leases]
    with pytest.raises(ConflictError, match="no address left"):
        with_lease(leases, SMALL, "late", 10, running=running)


def test_a_lease_outside_a_subnet_that_was_made_smaller_is_given_anew():
    leases = (Lease(machine="m", number=200, used=1),)
    assert with_lease(leases, SMALL, "m", 2)[1] in range(2, 7)


def test_an_address_asked_for_is_not_taken_from_a_running_machine():
    leases = (Lease(machine="other", number=9, used=1),)
    kept, number = with_lease(leases, LAB, "m", 2, wanted=9)
    assert (number, [lease.machine for lease in kept]) == (9, ["m"])
    with pytest.raises(ConflictError, match="'other'"):
        with_lease(leases, LAB, "m", 2, running=("other",), wanted=9)


def test_without_networks_there_is_no_table():
    assert rules.render((), ()) == f"add table {rules.TABLE}\ndelete table {rules.TABLE}\n"


def test_only_networks_with_nat_are_masqueraded():
    text = rules.render((up(LAB), up(SMALL.replace(nat=False))), ())
    assert "ip saddr 10.1.2.0/24" in text
    assert "ip6 saddr fd01::/64" in text
    assert text.count("masquerade") == 2
    assert 'set hidden { type ifname; elements = { "pm-lab" }; }' in text


def test_dnsmasq_is_told_of_members_alone():
    member = Member(machine="Web", network="lab", number=7, mac="02:00:00:00:00:01", link="vb-web")
    files = dnsmasq.files(LAB, (member,))
    assert files["clients"] == "02:00:00:00:00:01,10.1.2.7,[fd01::7],1h\n"
    assert files["hosts"] == "10.1.2.7 web.lab web\nfd01::7 web.lab web\n"
    assert "interface=pm-lab\n" in files["dnsmasq.conf"]
    assert "enable-ra" not in dnsmasq.files(SMALL, ())["dnsmasq.conf"]
    assert files["servers"] == ""


def test_who_is_in_two_networks_may_ask_either_for_names_of_both():
    mac, up = "02:00:00:00:00:01", Up(namespace=1, network=LAB, mac="02:00:00:00:00:02")
    members = Members(
        up=(up, up.replace(network=SMALL)),
        members=tuple(
            Member(machine="web", network=name, number=3, mac=mac, link=f"vb-{name}")
            for name in (LAB.name, SMALL.name)
        ),
    )
    assert members.others(LAB.name) == (SMALL,)
    asked = SMALL.gateways()[0]
    files = dnsmasq.files(LAB, members.of(LAB.name), members.others(LAB.name))
    assert files["servers"] == f"server=/{SMALL.name}/{asked}\n"
    assert members.without("web", SMALL.name).others(LAB.name) == ()


def test_members_are_read_as_they_were_written():
    member = Member(machine="web", network="lab", number=7, mac="02:00:00:00:00:01", link="vb-web")
    members = Members(
        up=(Up(namespace=1, network=LAB, mac="02:00:00:00:00:02"),),
        members=(member,),
        switches=(Switch(namespace=1, path="/proc/sys/a", before="0"),),
    )
    assert Members.from_data(members.to_data()) == members
    assert members.without("web", "lab").of("lab") == ()
