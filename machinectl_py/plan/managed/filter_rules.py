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
    parts = [_own_addresses(by_network.values(), pairs)]
    dialect = _TRACKED if tracked else _UNTRACKED
    filtered = [(up, one) for up, one in pairs if is_filtered(one)]
    parts += [_chains(up, one, dialect) for up, one in filtered]
    if filtered:
        jumps = (("iifname", "out"), ("oifname", "in"))
        lines = (_jumps(side, to, [one for _, one in filtered]) for side, to in jumps)
        parts.append(_hook("forward", *lines))
    return f"{start}table {BRIDGE_TABLE} {{\n{''.join(parts)}}}\n"


def _hook(hook: str, *lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"  chain {hook} {{\n    type filter hook {hook} priority 0\n{body}  }}\n"


def _chain(member: Member) -> str:
    return f"{member.machine}.{member.network}"  # which has no dot itself


def _jumps(side: str, to: str, members: Iterable[Member]) -> str:
    targets = ", ".join(f'"{one.link}" : jump {to}-{_chain(one)}' for one in members)
    return f"{side} vmap {{ {targets} }}"


def _own_addresses(ups: Iterable[Up], pairs: Iterable[tuple[Up, Member]]) -> str:
    """Return what lets pass what a machine sends as itself, and nobody else.

    Of as many rules for a hundred machines as for one: what is each one's own stands in sets.
    """
    links, macs, ipv4, ipv6, announced = [], [], [], [], []
    taken = {link_local(up.mac) for up in ups}
    for up, one in pairs:
        port, own = f'"{one.link}"', link_local(one.mac)
        addresses = one.addresses(up.network)
        theirs = (own, *(address for address in addresses if ":" in address))
        taken.add(own)
        links.append(port)
        macs.append(f"{port} . {one.mac}")
        ipv4 += [f"{port} . {address}" for address in addresses if ":" not in address]
        ipv6 += [f"{port} . {address}" for address in theirs]
        announced += [f"{port} . {_hexadecimal(address)}" for address in theirs]
    sets = (
        ("ports", "ifname", links),
        ("macs", "ifname . ether_addr", macs),
        ("ipv4", "ifname . ipv4_addr", ipv4),
        ("ipv6", "ifname . ipv6_addr", ipv6),
        ("link-locals", "ipv6_addr", sorted(taken)),
    )
    chains = _OWN.format(
        none=_NONE,
        announced=", ".join(announced),
        # The first ten bits of fe80::/10.
        link_local=f"{0xFE80 >> 6:#x}",
        taken=", ".join(sorted(map(_hexadecimal, taken))),
    )
    return "".join(set_of(*one) for one in sets) + chains + _hook("prerouting", _OWN_JUMP)


def set_of(name: str, kind: str, elements: Iterable[str]) -> str:
    """Return the definition of a set; nft has no way to write an empty list."""
    listed = ", ".join(elements)
    filled = f" elements = {{ {listed} }};" if listed else ""
    return f"  set {name} {{ type {kind};{filled} }}\n"


_OWN_JUMP = "iifname @ports jump own"
# Answers of DHCP and router advertisements are dnsmasq's. A link-local address may be of a
# machine's own choice, as for privacy, but not what the kernel makes of another's link.
_OWN = """\
  chain own {{
    iifname . ether saddr != @macs drop
    ether type != {{ arp, ip, ip6 }} drop
    ether type arp iifname . arp saddr ether != @macs drop
    ether type arp arp saddr ip != {none} iifname . arp saddr ip != @ipv4 drop
    ip saddr {none} udp sport 68 udp dport 67 return
    ether type ip iifname . ip saddr != @ipv4 drop
    udp sport {{ 67, 547 }} drop
    icmpv6 type nd-router-advert drop
    ether type ip6 iifname . ip6 saddr != @ipv6 jump strange
    icmpv6 type nd-neighbor-advert jump announced
  }}
  chain strange {{
    ip6 saddr @link-locals drop
    ip6 saddr != {{ fe80::/10, :: }} drop
  }}
  chain announced {{
    iifname . @th,64,128 {{ {announced} }} return
    @th,64,10 != {link_local} drop
    @th,64,128 {{ {taken} }} drop
  }}
"""


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
