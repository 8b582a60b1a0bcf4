"""What machines in a managed network may do: be themselves alone, and what is allowed them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

from tests.hosts.overlay import private_copy
from tests.integration.networks import WORLD, rules, run, verb
from tests.integration.test_managed_network import addresses, shown
from tests.integration.test_ports import booted, listening, reached
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Sends one frame: link, then its bytes in hexadecimal.
SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
s.send(bytes.fromhex(sys.argv[2]))
"""
TABLE = ("bridge", "pymachine-network")


@contextmanager
def two(host, tree, name, *options):
    """Run two machines in the default network, options for the first."""
    with (
        private_copy(tree) as one,
        private_copy(tree) as other,
        booted(host, one, f"{name}a", "--network", *options) as first,
        booted(host, other, f"{name}b", "--network") as second,
    ):
        yield first, second


def mac(machine) -> str:
    return machine.inside.links()["host0"]["address"]


def neighbours(machine) -> str:
    return run(*machine.inside.enter("ip", "neighbour"))


def send(machine, *frame: str) -> None:
    text = "".join(frame).replace(":", "")
    run(*machine.inside.enter("/usr/bin/python3", "-c", SEND, "host0", text))


def packed(address: str) -> str:
    return "".join(f"{int(part):02x}" for part in address.split("."))


@pytest.mark.parametrize("six", [False, True])
def test_nobody_speaks_from_another_address(host, pristine_tree, name, six):
    with two(host, pristine_tree, name) as (first, second):
        first.serve(80)
        own, stolen = addresses(second)[six], addresses(second)[six].rpartition(":" if six else ".")
        stolen = f"{stolen[0]}{stolen[1]}{'fefe' if six else '252'}"
        target = addresses(first)[six]
        assert reached(second.inside, target, 80) == f"{name}a {own}"
        length, more = (64, "nodad") if six else (24, "")
        second.inside.ip(f"address add {stolen}/{length} dev host0 {more}")
        second.inside.ip(f"route replace {target} dev host0 src {stolen}")
        assert reached(second.inside, target, 80) == ""
        assert (
            reached(second.inside, shown(host)["ipv6" if six else "ipv4"].partition("/")[0], 80)
            == ""
        )
        run(*host.enter("nft", "delete", "table", *TABLE))
        wait_for(lambda: reached(second.inside, target, 80) == f"{name}a {stolen}", "control")


def test_nobody_speaks_with_another_link_layer_address(host, pristine_tree, name):
    with two(host, pristine_tree, name) as (first, second):
        first.serve(80)
        target = addresses(first)[0]
        second.inside.ip("link set host0 address 02:00:00:00:00:77")
        second.inside.ip(f"neighbour replace {target} lladdr {mac(first)} dev host0")
        assert reached(second.inside, target, 80) == ""
        run(*host.enter("nft", "delete", "table", *TABLE))
        assert reached(second.inside, target, 80).startswith(f"{name}a ")


def test_nobody_claims_the_address_of_the_router(host, pristine_tree, name):
    with two(host, pristine_tree, name) as (first, second):
        router = shown(host)["ipv4"].partition("/")[0]
        victim, thief = addresses(first)[0], mac(second)
        bridge = host.links()["pm-default"]["address"]
        reached(first.inside, router, 9)  # so that it knows the router
        assert bridge in neighbours(first)
        # An answer of ARP: the router is at the thief's address; RFC 826.
        arp = ("0806", "0001", "0800", "06", "04", "0002", thief, packed(router), mac(first))
        for _ in range(3):
            send(second, mac(first), thief, *arp, packed(victim))
        assert bridge in neighbours(first)
        assert thief not in neighbours(first)
        run(*host.enter("nft", "delete", "table", *TABLE))

        def is_fooled():
            send(second, mac(first), thief, *arp, packed(victim))
            return f"{router} dev host0 lladdr {thief}" in neighbours(first)

        wait_for(is_fooled, "control")


def test_nobody_is_a_router(host, pristine_tree, name):
    with two(host, pristine_tree, name) as (first, second):
        # A router advertisement with a lifetime of half an hour, to all nodes; RFC 4861, 4.2.
        head = ("33:33:00:00:00:01", mac(second), "86dd", "60000000", "0010", "3a", "ff")
        source = second_link_local(second)
        everybody = "ff020000000000000000000000000001"
        body = "40000708" + "00000000" + "00000000"
        advert = "8600" + checksum(source, everybody, "86000000" + body) + body
        routes = ("ip", "-6", "route", "show", "default")
        for _ in range(3):
            send(second, *head, source, everybody, advert)
        assert "proto ra" not in via(first, second, routes)
        run(*host.enter("nft", "delete", "table", *TABLE))

        def is_believed():
            send(second, *head, source, everybody, advert)
            return "proto ra" in via(first, second, routes)

        wait_for(is_believed, "control")


def via(machine, router, routes) -> str:
    """Return the default routes of a machine that lead by another."""
    shown_ = run(*machine.inside.enter(*routes)).splitlines()
    return "\n".join(line for line in shown_ if link_local_text(router) in line)


def link_local_text(machine) -> str:
    text = run(*machine.inside.enter("ip", "-6", "-o", "address", "show", "dev", "host0"))
    return next(w.partition("/")[0] for w in text.split() if w.startswith("fe80"))


def second_link_local(machine) -> str:
    import socket

    return socket.inet_pton(socket.AF_INET6, link_local_text(machine)).hex()


def checksum(source: str, target: str, message: str) -> str:
    """Return that of ICMPv6; RFC 4443, 2.3."""
    data = bytes.fromhex(source + target + f"{len(message) // 2:08x}" + "0000003a" + message)
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return f"{~total & 0xFFFF:04x}"


def test_only_what_is_allowed_comes_in(host, world, pristine_tree, name):
    options = ("--allow=in:any:tcp:80", "--allow=in:any:icmp", "-p", "8081:81", "-p", "8080:80")
    with two(host, pristine_tree, name, *options) as (first, second), listening(world, "w", 70):
        for port in (80, 81):
            first.serve(port)
        for address in addresses(first):
            assert reached(second.inside, address, 80).startswith(f"{name}a ")
            assert reached(second.inside, address, 81) == ""
        # What it begins itself is answered.
        second.serve(90)
        assert reached(first.inside, addresses(second)[0], 90).startswith(f"{name}b ")
        assert reached(first.inside, WORLD, 70).startswith("w ")
        # A port that was forwarded is open to the world.
        wait_for(lambda: reached(world, "192.0.2.1", 8081) == f"{name}a {WORLD}", "81")
        wait_for(lambda: reached(world, "192.0.2.1", 8080) == f"{name}a {WORLD}", "80")


def test_what_is_denied_does_not_go_out(host, world, pristine_tree, name):
    options = (f"--deny=out:{WORLD}", "--deny=out:any:tcp:90", "--allow=out:any:tcp:70")
    with two(host, pristine_tree, name, *options) as (first, second):
        second.serve(90)
        second.serve(91)
        for address in addresses(second):
            assert reached(first.inside, address, 91).startswith(f"{name}b ")
            assert reached(first.inside, address, 90) == ""
        with listening(world, "w", 70), listening(world, "w", 71):
            assert reached(first.inside, WORLD, 70).startswith("w ")
            assert reached(first.inside, WORLD, 71) == ""
            assert reached(second.inside, WORLD, 71).startswith("w ")


def test_a_network_of_its_own_alone(host, world, tree, name):
    """It finds names, and reaches nothing else."""
    with (
        booted(host, tree, name, "--network", "--allow=out:network") as machine,
        listening(world, "w", 70),
    ):
        assert reached(machine.inside, WORLD, 70) == ""
        inside = ["nsenter", f"--target={machine.inside.pid}", "--net", "--mount"]
        assert run(*inside, "getent", "ahostsv4", f"{name}.default").split()[0]


def test_no_rule_of_a_machine_outlives_it(host, tree, name):
    with booted(host, tree, name, "--network", "--deny=in:[fd01::/16]:udp:1-9"):
        assert f"in-{name}" in rules(host)
    assert "pymachine" not in rules(host)


@pytest.mark.parametrize(
    "option", ["--allow=any", "--deny=in:any:gre", "--deny=in:any:icmp:1", "--deny=out:1.2.3:tcp"]
)
def test_what_is_not_valid_is_told(host, tree, name, option):
    done = verb(host, "run", "-D", str(tree), "-M", name, "--network", option, "x", check=False)
    assert done.returncode == 2
    assert subprocess.list2cmdline([option.partition("=")[2]]) in done.stderr
