"""The table of nftables that forwards ports of the host to machines; pure."""

from __future__ import annotations

from machinectl_py.config.spec import PortSpec  # noqa: TC001 - read from data by Record
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "inet pymachine-ports"
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}  # /etc/protocols is not on every host

# Maps of the host's ports to addresses and ports of machines: for each family those that apply to
# any address of the host, and those to one. A packet for no port of ours passes through untouched.
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
    number, service = "inet_proto . inet_service", "inet_service"
    parts = (
        _map("any4", f"{number} : ipv4_addr . {service}", _elements(forwards, 4, "")),
        _map("one4", f"ipv4_addr . {number} : ipv4_addr . {service}", _elements(forwards, 4, ".")),
        _map("any6", f"{number} : ipv6_addr . {service}", _elements(forwards, 6, "")),
        _map("one6", f"ipv6_addr . {number} : ipv6_addr . {service}", _elements(forwards, 6, ":")),
        _collection("set", "links", "ifname", [f'"{link}"' for link in links]),
        # From one machine on a bridge to another: the answer must come back through the host.
        _collection("set", "turns", "ifname . ifname", [f'"{link}" . "{link}"' for link in links]),
    )
    return f"{start}table {TABLE} {{\n{''.join(parts)}{_CHAINS}}}\n"


def _map(name: str, kind: str, elements: list[str]) -> str:
    return _collection("map", name, kind, elements)


def _collection(what: str, name: str, kind: str, elements: list[str]) -> str:
    filled = f"; elements = {{ {', '.join(elements)} }}" if elements else ""
    return f"  {what} {name} {{ type {kind}{filled}; }}\n"


def _elements(forwards: tuple[Forward, ...], version: int, mark: str) -> list[str]:
    """Return the elements of a map: for ports of any address, or with `mark` of one that has it."""
    found = []
    for forward in forwards:
        target = forward.ipv4 if version == 4 else forward.ipv6
        for port in forward.ports if target else ():
            if not _applies(port, version, mark):
                continue
            before = f"{port.address} . " if mark else ""
            for step in range(port.count):
                source = f"{before}{_NUMBERS[port.protocol]} . {port.host + step}"
                found.append(f"{source} : {target} . {port.inside + step}")
    return found


def _applies(port: PortSpec, version: int, mark: str) -> bool:
    if mark:
        return mark in port.address and port.address not in ("0.0.0.0", "::")  # noqa: S104
    return port.address in ("", "0.0.0.0" if version == 4 else "::")  # noqa: S104
