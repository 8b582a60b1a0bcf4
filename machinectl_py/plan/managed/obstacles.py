"""What on this host is in the way of a managed network, and what to do about it."""

from __future__ import annotations

import os

from machinectl_py.kernel import nft
from machinectl_py.plan.managed import forwarding
from machinectl_py.plan.managed.firewall import Packet, find_blocks
from machinectl_py.plan.managed.numbers import is_usable
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.plan.managed.firewall import Block

_LEGACY_TABLES = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


class Obstacle(Record):
    """One line on what is in the way, and one on what to do."""

    text: str
    remedy: str


def of_forwarding(network: ManagedNetwork) -> Iterator[Obstacle]:
    """Yield which version of IP this host does not pass on, nor can be made to."""
    for subnet in network.subnets():
        key = "ipv4.ip_forward" if subnet.version == 4 else "ipv6.conf.all.forwarding"
        if forwarding.is_on(subnet.version) or forwarding.can_switch(subnet.version):
            continue
        if subnet.version == 6 and not forwarding.has_ipv6():
            continue
        yield Obstacle(
            text=f"IPv{subnet.version} of the machines ends at this host: net.{key} is 0 and"
            " /proc/sys is read-only",
            remedy=f"sysctl -w net.{key}=1, on the host of this host.",
        )


def of_firewall(network: ManagedNetwork) -> Iterator[Obstacle]:
    """Yield which rules of others stop packets of a network of this definition, up or not.

    Raises:
        OSError: the rules cannot be listed.
    """
    rules = nft.ruleset()
    by_place: dict[tuple[str, str, str], list[Block]] = {}
    for block in find_blocks(rules, packets(network)):
        place = (f"{block.family} {block.table} {block.chain}", block.rule, block.packet.hook)
        by_place.setdefault(place, []).append(block)
    for (chain, rule, _hook), blocks in by_place.items():
        what = ", ".join(dict.fromkeys(block.packet.what for block in blocks))
        yield Obstacle(
            text=f"The firewall stops {what} of the network '{network.name}': {chain} ({rule})",
            remedy=remedy(network, blocks, rules),
        )


def packets(network: ManagedNetwork) -> tuple[Packet, ...]:
    """Return what must pass."""
    return (*_packets_in(network), *_packets_through(network))


def _packets_in(network: ManagedNetwork) -> Iterator[Packet]:
    for subnet in network.subnets():
        family = "ip" if subnet.version == 4 else "ip6"
        new = (("meta iifname", network.bridge), ("ct state", "new"), ("meta l4proto", "udp"))
        if subnet.version == 4:
            dhcp = (("udp sport", 68), ("udp dport", 67), ("ip saddr", "0.0.0.0"))  # noqa: S104
            yield Packet(what="DHCP", hook="input", family=family, facts=(*new, *dhcp))
        addresses = (
            (f"{family} saddr", subnet.at(_sample(network))),
            (f"{family} daddr", str(subnet).partition("/")[0]),
        )
        yield Packet(
            what="DNS", hook="input", family=family, facts=(*new, ("udp dport", 53), *addresses)
        )


def _packets_through(network: ManagedNetwork) -> Iterator[Packet]:
    for subnet in network.subnets():
        family = "ip" if subnet.version == 4 else "ip6"
        uplink = default_link(subnet.version)
        if not uplink:
            continue
        own, web = subnet.at(_sample(network)), (("meta l4proto", "tcp"),)
        out = (
            ("meta iifname", network.bridge),
            ("meta oifname", uplink),
            ("ct state", "new"),
            ("tcp dport", 443),
            (f"{family} saddr", own),
        )
        back = (
            ("meta iifname", uplink),
            ("meta oifname", network.bridge),
            ("ct state", "established"),
            ("tcp sport", 443),
            (f"{family} daddr", own),
        )
        to, answers = f"IPv{subnet.version} to the world", f"IPv{subnet.version} from the world"
        yield Packet(what=to, hook="forward", family=family, facts=(*web, *out))
        yield Packet(what=answers, hook="forward", family=family, facts=(*web, *back))


def _sample(network: ManagedNetwork) -> int:
    """Return the number of some machine in a network."""
    return next(number for number in range(1, 8) if is_usable(network, number))


def default_link(version: int) -> str:
    """Return the link by which the default route leads, "" if there is none."""
    try:
        with open(f"/proc/net/{'route' if version == 4 else 'ipv6_route'}", encoding="ascii") as f:
            rows = [line.split() for line in f]
    except OSError:
        return ""
    for row in rows:
        if version == 4 and len(row) > 7 and row[1] == row[7] == "00000000":
            return row[0]
        if version == 6 and row[0] == "0" * 32 and row[1] == "00" and row[-1] != "lo":
            return row[-1]
    return ""


def remedy(network: ManagedNetwork, blocks: list[Block], rules: list[dict[str, Any]]) -> str:
    """Return the command line that lets the packets pass, in the words of who made the rules.

    Args:
        network: whose packets they are.
        blocks: what stops them, all of one chain.
        rules: all there are, as of `nft.ruleset`.
    """
    bridge, block = network.bridge, blocks[0]
    chains = {str(item["chain"]["name"]) for item in rules if "chain" in item}
    if block.table == "firewalld":
        trust = f"--permanent --zone=trusted --add-interface={bridge}"
        return f"firewall-cmd {trust}; firewall-cmd --reload"
    if block.table == "filter" and any(name.startswith(("ufw-", "ufw6-")) for name in chains):
        return f"ufw allow in on {bridge}; ufw route allow in on {bridge}"
    if block.packet.hook == "forward" and "DOCKER-USER" in chains and block.table == "filter":
        tool = "iptables" if block.family == "ip" else "ip6tables"
        return "; ".join(f"{tool} -I DOCKER-USER -{side} {bridge} -j ACCEPT" for side in "io")
    sides = dict.fromkeys(
        key.removeprefix("meta ")
        for block in blocks
        for key, value in block.packet.facts
        if value == bridge
    )
    return "; ".join(
        f"nft insert rule {block.family} {block.table} {block.chain} {side} {bridge} accept"
        for side in sides
    )


def legacy_tables() -> tuple[str, ...]:
    """Return the tables of iptables-legacy here, whose rules nft does not show."""
    found = set()
    for path in _LEGACY_TABLES:
        if os.path.exists(path):
            try:
                with open(path, encoding="ascii") as file:
                    found.update(file.read().split())
            except OSError:
                continue
    return tuple(sorted(found))
