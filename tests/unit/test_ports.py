"""Forwarded ports: their text, what they collide with, and the rules made of them."""

from __future__ import annotations

import subprocess

import pytest

from machinectl_py.config.network_values import from_port, port, ports_overlap
from machinectl_py.plan.port_table import Forward, render


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("80", "tcp:80:80"),
        ("8080:80", "tcp:8080:80"),
        ("udp:53", "udp:53:53"),
        ("sctp:9:10", "sctp:9:10"),
        ("8000-8010", "tcp:8000-8010:8000-8010"),
        ("8000-8010:80-90", "tcp:8000-8010:80-90"),
        ("192.0.2.1:8080:80", "tcp:192.0.2.1:8080:80"),
        ("udp:0.0.0.0:53", "udp:0.0.0.0:53:53"),
        ("[2001:DB8:0:0::1]:8080:80", "tcp:[2001:db8::1]:8080:80"),
        ("tcp:[::]:1-2", "tcp:[::]:1-2:1-2"),
    ],
)
def test_a_port_is_read_and_told(text, whole):
    (found,) = port(text)
    assert from_port(found) == whole
    assert port(whole) == (found,)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "65536", "-1", "80:", ":80", "80:81:82", "tcp", "tcp:", "icmp:8", "http"),
        *("90-80", "1-2:3", "1:2-3", "1-3:1-2", "1-", "-2", "1-65536", "65530-65535:65531-65536"),
        *("1.2.3:80", "1.2.3.4", "1.2.3.4.5:80", "256.0.0.1:80", "::1:80", "[::1]80", "[::1]"),
        *("[1.2.3.4]:80", "[::1:80", "tcp:udp:80", " 80", "80 ", "\u0661"),
    ],
)
def test_what_is_no_port(text):
    with pytest.raises(ValueError, match=r"."):
        port(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("80", "80:81", True),
        ("80", "udp:80", False),
        ("80-90", "85", True),
        ("80-90", "91", False),
        ("80-90", "70-80", True),
        ("1.2.3.4:80", "80", True),
        ("1.2.3.4:80", "0.0.0.0:80", True),
        ("1.2.3.4:80", "1.2.3.5:80", False),
        ("1.2.3.4:80", "[::]:80", False),
        ("[2001:db8::1]:80", "[::]:80", True),
        ("0.0.0.0:80", "[::]:80", False),
    ],
)
def test_ports_collide_as_bound_ones_do(one, other, overlap):
    (first,), (second,) = port(one), port(other)
    assert ports_overlap(first, second) is overlap
    assert ports_overlap(second, first) is overlap


def forward(*texts, machine="m", **changes):
    ports = tuple(one for text in texts for one in port(text))
    return Forward(machine=machine, network=1, ports=ports, **changes)


def elements(rules, name):
    (line,) = (line for line in rules.splitlines() if line.split()[:2] == ["map", name])
    _, _, filled = line.partition("elements = { ")
    return filled.partition(" }")[0].split(", ") if filled else []


def test_without_an_address_inside_nothing_is_forwarded():
    rules = render([forward("80")])
    assert all(elements(rules, name) == [] for name in ("any4", "one4", "any6", "one6"))


def test_each_port_of_a_range_leads_to_its_own():
    rules = render([forward("udp:8000-8002:80-82", ipv4="10.0.0.2", ipv6="fd00::2")])
    assert elements(rules, "any4") == [
        f"17 . {8000 + step} : 10.0.0.2 . {80 + step}" for step in range(3)
    ]
    assert len(elements(rules, "any6")) == 3


def test_an_address_is_of_one_family():
    given = ("192.0.2.1:80", "[2001:db8::1]:81", "0.0.0.0:82", "[::]:83")
    rules = render([forward(*given, ipv4="10.0.0.2", ipv6="fd00::2")])
    assert elements(rules, "one4") == ["192.0.2.1 . 6 . 80 : 10.0.0.2 . 80"]
    assert elements(rules, "one6") == ["2001:db8::1 . 6 . 81 : fd00::2 . 81"]
    assert elements(rules, "any4") == ["6 . 82 : 10.0.0.2 . 82"]
    assert elements(rules, "any6") == ["6 . 83 : fd00::2 . 83"]


def test_the_last_port_s_end_is_the_table_s():
    rules = render([])
    assert "delete table inet pymachine-ports" in rules
    assert "{" not in rules


def test_nft_reads_the_rules():
    made = render(
        [
            forward("80", "[::1]:81", "1.2.3.4:82-83", link="ve-m", ipv4="10.0.0.2", ipv6="fd::2"),
            forward("sctp:84", machine="n", link="a.b-c", ipv6="fd::3"),
        ]
    )
    # In a namespace of its own: even a check asks the kernel for the tables there are.
    words = ["unshare", "--net", "--map-root-user", "nft", "--check", "-f", "-"]
    done = subprocess.run(words, input=made, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
