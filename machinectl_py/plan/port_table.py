"""The table of nftables that forwards ports of the host to machines; pure."""

from __future__ import annotations

from machinectl_py.config.spec import PortSpec  # noqa: TC001 - read from data by Record
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TABLE = "inet pymachine-ports"
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}  # /etc/protocols is not on every host

# Of the host's ports to addresses and ports of machines: for each version of IP those that apply to
# any address of the host, and those to one.
_MAPS = {
    "any4": "inet_proto . inet_service : ipv4_addr . inet_service",
    "one4": "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "any6": "inet_proto . inet_service : ipv6_addr . inet_service",
    "one6": "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
}
# A packet for no port of ours passes through untouched.
_CHAINS = """\
  chain guard {
    type filter hook prerouting priority -300
    iifname @links ip daddr 127.0.0.0/8 drop
  }
  chain prerouting {
    type nat hook prerouting priority -100
    fib daddr type local jump forward
  }
  chain output {
    type nat hook output priority -100
    fib daddr type local jump forward
  }
  chain forward {
    dnat ip to ip daddr . meta l4proto . th dport map @one4
    dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6
    dnat ip6 to meta l4proto . th dport map @any6
  }
  chain postrouting {
    type nat hook postrouting priority 100
    oifname @links ip saddr 127.0.0.0/8 ct status dnat masquerade
    iifname . oifname @turns ct status dnat masquerade
  }
"""


class Forward(Record):
    """The ports that a machine has taken, and where they lead to."""

    machine: str
    network: int  # inode of the network namespace whose ports they are
    ports: tuple[PortSpec, ...]
    link: str = ""  # of the host, that leads to the machine
    opened: bool = False  # by us, for packets of 127.0.0.0/8
    ipv4: str = ""  # the machine's address; "" while it has none
    ipv6: str = ""


def render(forwards: Iterable[Forward]) -> str:
    """Return the transaction that replaces the table by one of these; by none if there is none."""
    forwards = tuple(forwards)
    start = f"add table {TABLE}\ndelete table {TABLE}\n"
    if not forwards:
        return start
    links = sorted({forward.link for forward in forwards if forward.link})
    filled: dict[str, list[str]] = {name: [] for name in _MAPS}
    for forward in forwards:
        for name, element in elements(forward.ports, ipv4=forward.ipv4, ipv6=forward.ipv6):
            filled[name].append(element)
    parts = (
        *(_collection("map", name, kind, filled[name]) for name, kind in _MAPS.items()),
        _collection("set", "links", "ifname", [f'"{link}"' for link in links]),
        # From one machine on a bridge to another: the answer must come back through the host.
        _collection("set", "turns", "ifname . ifname", [f'"{link}" . "{link}"' for link in links]),
    )
    return f"{start}table {TABLE} {{\n{''.join(parts)}{_CHAINS}}}\n"


def _collection(what: str, name: str, kind: str, elements: list[str]) -> str:
    filled = f"; elements = {{ {', '.join(elements)} }}" if elements else ""
    return f"  {what} {name} {{ type {kind}{filled}; }}\n"


def elements(ports: tuple[PortSpec, ...], *, ipv4: str, ipv6: str) -> Iterator[tuple[str, str]]:
    """Yield what leads ports to addresses of a machine, "" for none: a map and its element."""
    for port in ports:
        for version, target in ((4, ipv4), (6, ipv6)):
            name = _map_of(port, version) if target else ""
            before = f"{port.address} . " if name.startswith("one") else ""
            for step in range(port.count if name else 0):
                source = f"{before}{_NUMBERS[port.protocol]} . {port.host + step}"
                yield name, f"{source} : {target} . {port.inside + step}"


def _map_of(port: PortSpec, version: int) -> str:
    """Return the map in which a port stands, "" if it is of the other version of IP."""
    if not port.address:
        return f"any{version}"
    if (":" in port.address) != (version == 6):
        return ""
    return f"any{version}" if port.address in ("0.0.0.0", "::") else f"one{version}"  # noqa: S104
