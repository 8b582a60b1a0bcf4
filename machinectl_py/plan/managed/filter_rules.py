"""What a machine in a managed network may send and get; pure.

A packet between a machine and this host, or the world, comes by the tables of IP, which know
connections; one between two ports of a bridge by the bridge's alone, unless br_netfilter is on.
"""

from __future__ import annotations

from machinectl_py.config.subnet import read_address, write_address
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.config.spec import Traffic
    from machinectl_py.plan.managed.members import Member, Up

BRIDGE_TABLE = "bridge pymachine-network"
# To find one another, and routers: neighbour discovery.
_DISCOVERY = "icmpv6 type { 133, 134, 135, 136 } return"
_NONE = "0.0.0.0"  # noqa: S104 - of who looks for an address
_ICMP = "meta l4proto { 1, 58 } "  # by number: /etc/protocols is not on every host


def is_filtered(member: Member) -> bool:
    """Say whether traffic of a machine is allowed or denied."""
    return bool(member.allow or member.deny)


class Dialect(Record):
    """How a table tells what is the same in each."""

    begun: str  # what passes of connections that are there already
    every: str = ""  # before what is said of all packets of IP
    to_host: str = ""  # what passes to this host in any case
    forwarded: str = ""  # ports that were forwarded


_IP = Dialect(
    begun="ct state established,related return",
    to_host="udp dport { 67, 547 } return",  # a lease is renewed
    forwarded="ct status dnat return",
)
_TRACKED = Dialect(begun=_IP.begun, every="ether type { ip, ip6 } ")
# Not all kernels track connections of bridges (CONFIG_NF_CONNTRACK_BRIDGE).
_UNTRACKED = _TRACKED.replace(begun="meta l4proto tcp tcp flags & (syn|ack) != syn return")


def _chains(up: Up, member: Member, dialect: Dialect) -> str:
    """Return the chains of what a machine may begin, and what may be begun with it."""
    texts = []
    for direction in ("out", "in"):
        allow = [one for one in member.allow if one.direction == direction]
        deny = [one for one in member.deny if one.direction == direction]
        lines = [dialect.begun, _DISCOVERY, dialect.to_host if direction == "out" else ""]
        lines += [line for one in allow for line in _rules(up.network, one, dialect, "return")]
        lines += [line for one in deny for line in _rules(up.network, one, dialect, "drop")]
        if allow and not deny:
            lines += [dialect.forwarded, f"{dialect.every}drop"]
        body = "".join(f"    {line}\n" for line in filter(None, lines))
        texts.append(f"  chain {direction}-{_chain(member)} {{\n{body}  }}\n")
    return "".join(texts)


def _rules(
    network: ManagedNetwork, traffic: Traffic, dialect: Dialect, verdict: str
) -> Iterable[str]:
    side = "saddr" if traffic.direction == "in" else "daddr"
    what = f"meta l4proto {traffic.protocol} " if traffic.protocol else ""
    if traffic.protocol == "icmp":
        what = _ICMP
    if traffic.first:
        what += f"th dport {traffic.first}-{traffic.last} "
    peers = [traffic.peer]
    if traffic.peer == "network":
        peers = [f"{subnet.at(0)}/{subnet.prefix}" for subnet in network.subnets()]
    for peer in peers:
        family = "ip6" if ":" in peer else "ip"
        start = dialect.every if peer == "any" else f"{family} {side} {peer} "
        yield f"{start}{what}{verdict}"


def render_bridge(ups: Iterable[Up], members: Iterable[Member], *, tracked: bool) -> str:
    """Return the transaction that replaces the bridges' table; by none if it has no port.

    Args:
        ups: the networks that are up here.
        members: the machines in them.
        tracked: whether the kernel tracks connections of bridges.
    """
    start = f"add table {BRIDGE_TABLE}\ndelete table {BRIDGE_TABLE}\n"
    by_network = {up.network.name: up for up in ups}
    pairs = [(by_network[one.network], one) for one in members if one.network in by_network]
    if not pairs:
        return start
    taken = {link_local(one.mac) for _, one in pairs}
    taken |= {link_local(up.mac) for up in by_network.values()}
    parts = [_own_addresses(up, one, taken - {link_local(one.mac)}) for up, one in pairs]
    dialect = _TRACKED if tracked else _UNTRACKED
    filtered = [(up, one) for up, one in pairs if is_filtered(one)]
    parts += [_chains(up, one, dialect) for up, one in filtered]
    hooks = [("prerouting", [("iifname", "own", [one for _, one in pairs])])]
    if filtered:
        ports = [one for _, one in filtered]
        hooks.append(("forward", [("iifname", "out", ports), ("oifname", "in", ports)]))
    for hook, jumps in hooks:
        lines = "".join(f"    {_jumps(side, to, ports)}\n" for side, to, ports in jumps)
        parts.append(f"  chain {hook} {{\n    type filter hook {hook} priority 0\n{lines}  }}\n")
    return f"{start}table {BRIDGE_TABLE} {{\n{''.join(parts)}}}\n"


def _chain(member: Member) -> str:
    return f"{member.machine}.{member.network}"  # which has no dot itself


def _jumps(side: str, to: str, members: Iterable[Member]) -> str:
    targets = ", ".join(f'"{one.link}" : jump {to}-{_chain(one)}' for one in members)
    return f"{side} vmap {{ {targets} }}"


def _own_addresses(up: Up, member: Member, others: set[str]) -> str:
    """Return the chain that lets pass what a machine sends as itself, and nobody else."""
    own = link_local(member.mac)
    ipv4 = [address for address in member.addresses(up.network) if ":" not in address]
    ipv6 = [address for address in member.addresses(up.network) if ":" in address]
    announced = ", ".join(_hexadecimal(address) for address in (own, *ipv6))
    foreign = ", ".join(sorted(_hexadecimal(address) for address in others))
    lines = [
        f"ether saddr != {member.mac} drop",
        "ether type != { arp, ip, ip6 } drop",
        f"ether type arp arp saddr ether != {member.mac} drop",
        f"ether type arp arp saddr ip != {{ {', '.join((_NONE, *ipv4))} }} drop",
        f"ip saddr {_NONE} udp sport 68 udp dport 67 return",
        f"ether type ip ip saddr != {{ {', '.join(ipv4)} }} drop" if ipv4 else "ether type ip drop",
        "udp sport { 67, 547 } drop",  # answers of DHCP are dnsmasq's
        "icmpv6 type nd-router-advert drop",
        f"icmpv6 type nd-neighbor-advert @th,64,128 {{ {announced} }} return",
        f"icmpv6 type nd-neighbor-advert @th,64,10 != {0xFE80 >> 6:#x} drop",
        f"icmpv6 type nd-neighbor-advert @th,64,128 {{ {foreign} }} drop" if foreign else "",
        f"ip6 saddr {{ {', '.join((own, *ipv6))} }} return",
        f"ip6 saddr {{ {', '.join(sorted(others))} }} drop" if others else "",
        "ether type ip6 ip6 saddr != { fe80::/10, :: } drop",
    ]
    body = "".join(f"    {line}\n" for line in filter(None, lines))
    return f"  chain own-{_chain(member)} {{\n{body}  }}\n"


def _hexadecimal(address: str) -> str:
    return f"{read_address(address)[1]:#034x}"


def link_local(mac: str) -> str:
    """Return the link-local address that a kernel makes of a link-layer address; RFC 4291, A."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return write_address(6, 0xFE80 << 112 | int.from_bytes(identifier, "big"))


def jumps_of_ip(ups: Iterable[Up], members: Iterable[Member]) -> tuple[str, str, str]:
    """Return, for the table of IP, the filtered machines' chains, and the rules that lead there.

    Returns:
        the chains; the rules of packets to this host; the rules of packets that are forwarded.
    """
    by_network = {up.network.name: up for up in ups}
    texts, to_host, forwarded = "", "", ""
    for one in members:
        up = by_network.get(one.network)
        if up is None or not is_filtered(one):
            continue
        texts += _chains(up, one, _IP)
        for address in one.addresses(up.network):
            family = "ip6" if ":" in address else "ip"
            out = f'iifname "{up.network.bridge}" {family} saddr {address} jump out-{_chain(one)}\n'
            into = f'oifname "{up.network.bridge}" {family} daddr {address} jump in-{_chain(one)}\n'
            to_host += f"    {out}"
            forwarded += f"    {out}    {into}"
    return texts, to_host, forwarded
