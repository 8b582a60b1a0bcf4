"""Firewalls of the host that are in a managed network's way: which rule it is, and what to add."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.integration.networks import WORLD, Network, rules, run, verb
from tests.integration.test_ports import listening, reached
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

OWN = """
table inet own {
  chain input {
    type filter hook input priority 0; policy drop
    ct state vmap { established : accept, related : accept, invalid : drop }
    iif lo accept
    meta l4proto { 1, 58 } accept
    tcp dport { 22, 80 } accept
  }
  chain forward {
    type filter hook forward priority 0; policy drop
  }
}
"""
# As firewalld 1.x has them with nothing but its default zone.
FIREWALLD = """
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority 10
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority 10
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, 2002::/16 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES {
    iifname "out0" goto filter_IN_public
    goto filter_IN_public
  }
  chain filter_FORWARD_ZONES {
    iifname "out0" goto filter_FWD_public
    goto filter_FWD_public
  }
  chain filter_IN_public {
    tcp dport 22 ct state { new, untracked } accept
    ip6 daddr fe80::/64 udp dport 546 ct state { new, untracked } accept
    meta l4proto { 1, 58 } accept
  }
  chain filter_FWD_public {
    jump filter_FWD_public_allow
    meta l4proto { 1, 58 } accept
  }
  chain filter_FWD_public_allow {
    oifname "out0" iifname "out0" accept
  }
}
"""
# As `ufw enable` leaves them, without logging.
UFW = """
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
:ufw-skip-to-policy-input - [0:0]
:ufw-after-input - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input
-A ufw-after-input -m addrtype --dst-type BROADCAST -j ufw-skip-to-policy-input
-A ufw-skip-to-policy-input -j DROP
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
COMMIT
"""
DOCKER = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
"""
LINE = re.compile(r"pymachine: The firewall stops (.*) of the network 'default': (.*) \((.*)\)\.")


@pytest.fixture
def wall(host, world):
    """Load rules, and remove them at the end."""
    host.ip(f"route add default via {WORLD}")
    before = rules(host)

    def load(text: str) -> None:
        tool = ["iptables-nft-restore"] if text.lstrip().startswith("*") else ["nft", "-f", "-"]
        subprocess.run(host.enter(*tool), input=text, check=True, text=True)

    yield load
    for line in set(rules(host).splitlines()) - set(before.splitlines()):
        if line.startswith("table "):
            run(*host.enter("nft", "delete", *line.split()[:3]))


def told(host, root, machine: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return what a start tells of firewalls, and its remedies."""
    done = verb(host, "run", "-D", str(root), "-M", machine, "--network", "/bin/true")
    remedies = re.findall(r"To let them pass: (.*)", done.stderr)
    assert len(remedies) == done.stderr.count("\n")
    return LINE.findall(done.stderr), remedies


def passes(host, world, root, machine: str) -> tuple[bool, bool]:
    """Say whether DHCP and packets to the world really pass."""
    words = (*COMMAND, "run", "-D", root, "-M", machine, "--network", "/bin/sleep", "infinity")
    state = Path(f"/run/pymachine/machines/{machine}/state.json")

    def is_up() -> bool:
        try:
            return json.loads(state.read_text())["phase"] == "running"
        except FileNotFoundError:
            return False

    client = ("busybox", "udhcpc", "-i", "host0", "-nqf", "-t2", "-T1", "-s", "/bin/true")
    with subprocess.Popen(host.enter(*words), stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(is_up, "the machine does not start")
            inside = Network(json.loads(state.read_text())["leader"])
            leased = subprocess.run(inside.enter(*client), check=False, capture_output=True)
            with listening(world, "world", 80):
                return leased.returncode == 0, reached(inside, WORLD, 80) != ""
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            OWN,
            [
                ("DHCP, DNS", "inet own input", "policy drop"),
                ("IPv4 to the world, IPv4 from the world", "inet own forward", "policy drop"),
            ],
        ),
        (
            FIREWALLD,
            [
                ("DHCP, DNS", "inet firewalld filter_INPUT", "reject"),
                ("IPv4 to the world", "inet firewalld filter_FORWARD", "reject"),
            ],
        ),
        (
            UFW,
            [
                ("DHCP, DNS", "ip filter INPUT", "policy drop"),
                ("IPv4 to the world", "ip filter FORWARD", "policy drop"),
            ],
        ),
    ],
    ids=["own", "firewalld", "ufw"],
)
def test_what_stops_packets_is_told_and_does_stop_them(
    host,
    world,
    wall,
    tree,
    name,
    text,
    expected,
):
    assert told(host, tree, name) == ([], [])
    assert passes(host, world, tree, name) == (True, True)
    wall(text)
    found, _ = told(host, tree, name)
    assert [(what, chain, rule.partition(",")[0]) for what, chain, rule in found] == expected
    assert passes(host, world, tree, name) == (False, False)
    done = verb(host, "doctor", "--json=short", check=False)
    failed = [c["text"] for c in json.loads(done.stdout) if c["result"] == "failed"]
    assert done.returncode == 1
    assert all(any(chain in line for line in failed) for _, chain, _ in expected)


@pytest.mark.parametrize("text", [OWN, DOCKER], ids=["own", "docker"])
def test_what_is_to_be_added_helps(host, world, wall, tree, name, text):
    wall(text)
    found, remedies = told(host, tree, name)
    assert found
    assert passes(host, world, tree, name)[1] is False
    for remedy in remedies:
        run(*host.enter("sh", "-ec", remedy))
    assert told(host, tree, name) == ([], [])
    assert passes(host, world, tree, name) == (True, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [(FIREWALLD, "firewall-cmd --permanent --zone=trusted"), (UFW, "ufw allow in on pm-default")],
    ids=["firewalld", "ufw"],
)
def test_what_to_add_is_in_the_words_of_who_made_the_rules(host, wall, tree, name, text, says):
    wall(text)
    assert all(remedy.startswith(says) for remedy in told(host, tree, name)[1])


def test_a_firewall_that_lets_all_pass_is_not_blamed(host, world, wall, tree, name):
    wall(
        """
        table inet own {
          set links { type ifname; elements = { "pm-default" } }
          chain input {
            type filter hook input priority 0; policy drop
            iifname @links jump machines
          }
          chain machines { udp dport { 53, 67, 547 } accept; meta l4proto 58 accept; }
          chain forward {
            type filter hook forward priority 0; policy drop
            ct state vmap { established : accept, related : accept }
            iifname "pm-*" ip saddr 10.0.0.0/8 accept
          }
        }
        """
    )
    assert told(host, tree, name) == ([], [])
    assert passes(host, world, tree, name) == (True, True)
