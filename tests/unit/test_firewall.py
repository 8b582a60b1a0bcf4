"""Which rules stop a packet for sure, of what nft lists as JSON."""

from __future__ import annotations

import pytest

from machinectl_py.plan.managed.firewall import Packet, find_blocks

DNS = Packet(
    what="DNS",
    hook="input",
    family="ip",
    facts=(
        ("meta iifname", "pm-lab"),
        ("meta l4proto", "udp"),
        ("ct state", "new"),
        ("udp dport", 53),
        ("ip saddr", "10.1.2.3"),
    ),
)
DROP, ACCEPT = {"drop": None}, {"accept": None}


def match(left: dict, right: object, op: str = "==") -> dict:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict:
    return {"meta": {"key": key}}


def port(protocol: str = "udp") -> dict:
    return {"payload": {"protocol": protocol, "field": "dport"}}


def stopped(*rules: list[dict], policy: str = "drop", family: str = "inet", **chains) -> str:
    """Return by which rule DNS is stopped in a chain of these rules; "" if it is not for sure."""
    listed: list[dict] = [
        {"metainfo": {}},
        {"set": {"family": family, "table": "t", "name": "s", "elem": [{"range": [50, 60]}, 7]}},
        {
            "chain": {
                "family": family, "table": "t", "name": "c", "type": "filter", "hook": "input",
                "prio": 0, "policy": policy,
            }
        },
    ]  # fmt: skip
    for chain, its in {"c": rules, **chains}.items():
        listed += [
            {"rule": {"family": family, "table": "t", "chain": chain, "handle": n, "expr": e}}
            for n, e in enumerate(its, 1)
        ]
    found = find_blocks(listed, [DNS])
    return f"{found[0].chain} {found[0].rule}" if found else ""


def test_policy():
    assert stopped() == "c policy drop"
    assert stopped(policy="accept") == ""
    assert stopped(family="ip") == "c policy drop"
    assert stopped(family="ip6") == ""
    assert stopped(family="bridge") == ""


@pytest.mark.parametrize(
    "expression",
    [
        match(meta("iifname"), "pm-lab"),
        match(meta("iifname"), "pm-*"),
        match(meta("iif"), {"set": ["lo", "pm-lab"]}),
        match(meta("iifname"), "lo", "!="),
        match(port(), 53),
        match(port("th"), {"range": [1, 1024]}),
        match(port(), {"set": [22, {"range": [50, 60]}]}),
        match(port(), "@s"),
        match(
            {"payload": {"protocol": "ip", "field": "saddr"}},
            {"prefix": {"addr": "10.0.0.0", "len": 8}},
        ),
        match({"ct": {"key": "state"}}, ["new", "untracked"], "in"),
        match(meta("nfproto"), "ipv4"),
        match(meta("l4proto"), {"set": ["tcp", "udp"]}),
        match(meta("l4proto"), {"set": [6, 17]}),
        match({"payload": {"protocol": "ip", "field": "protocol"}}, "udp"),
        match(meta("skuid"), 0),  # not known, so possible
        {"xt": {"type": "match", "name": "addrtype"}},
    ],
)
def test_what_may_let_it_pass_is_no_block(expression):
    assert stopped([expression, {"counter": {}}, ACCEPT]) == ""


@pytest.mark.parametrize(
    "expression",
    [
        match(meta("iifname"), "eth*"),
        match(meta("iifname"), {"set": ["lo", "eth0"]}),
        match(port("tcp"), 53),
        match(meta("l4proto"), 6),
        match({"payload": {"protocol": "ip", "field": "protocol"}}, "icmp"),
        match({"payload": {"protocol": "ip6", "field": "nexthdr"}}, "udp"),
        match(port(), "@s", "!="),
        match(port(), {"set": [22, {"elem": {"val": 80}}]}),
        match({"payload": {"protocol": "ip6", "field": "saddr"}}, "fd01::1"),
        match({"payload": {"protocol": "icmp", "field": "type"}}, "echo-request"),
        match({"ct": {"key": "state"}}, ["established", "related"], "in"),
        match({"ct": {"key": "status"}}, "dnat", "in"),
        {"xt": {"type": "match", "name": "conntrack"}},
    ],
)
def test_what_does_not_apply_lets_nothing_pass(expression):
    assert stopped([expression, ACCEPT]) == "c policy drop"


def test_a_rule_is_told_by_its_chain_and_handle():
    assert stopped([{"reject": {"type": "icmpx"}}], policy="accept") == "c reject, handle 1"
    assert stopped([{"jump": {"target": "d"}}], d=[[], [DROP]]) == "d drop, handle 2"


def test_jumps_come_back_and_gotos_do_not():
    assert stopped([{"jump": {"target": "d"}}], [ACCEPT], d=[]) == ""
    assert stopped([{"goto": {"target": "d"}}], [ACCEPT], d=[]) == "c policy drop"
    assert stopped([{"jump": {"target": "d"}}], d=[[{"return": None}], [ACCEPT]]) == "c policy drop"


def test_maps_of_verdicts():
    states = {"set": [["established", ACCEPT], ["invalid", DROP]]}
    assert stopped([{"vmap": {"key": {"ct": {"key": "state"}}, "data": states}}]) == "c policy drop"
    ports = {"set": [[22, ACCEPT], [53, ACCEPT]]}
    assert stopped([{"vmap": {"key": port(), "data": ports}}]) == ""
    assert stopped([{"vmap": {"key": port(), "data": "@named"}}]) == ""


def test_what_is_not_understood_drops_nothing():
    assert stopped([match(meta("mark"), 7), DROP], policy="accept") == ""
    assert stopped([{"limit": {"rate": 1}}, DROP], policy="accept") == ""


def test_chains_that_jump_in_a_circle_end():
    assert stopped([{"jump": {"target": "d"}}], d=[[{"jump": {"target": "d"}}]]) == ""
