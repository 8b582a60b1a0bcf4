"""Traffic that is allowed or denied in a managed network, from text and back."""

from __future__ import annotations

from machinectl_py.config.spec import Traffic
from machinectl_py.config.subnet import read_subnet
from machinectl_py.config.words import split_fields

_DIRECTIONS = ("in", "out")
_PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
_PORT_PROTOCOLS = ("tcp", "udp", "sctp")
_FORM = "in|out:PEER[:PROTOCOL[:PORT[-PORT]]], such as in:any:tcp:80"


def traffic(text: str) -> tuple[Traffic, ...]:
    """Return the traffic of DIRECTION:PEER[:PROTOCOL[:PORT[-PORT]]].

    An IPv6 address stands in brackets: "in:[fd01::/64]:tcp:22".

    Raises:
        ValueError: it is not valid.
    """
    direction, colon, rest = text.partition(":")
    if direction not in _DIRECTIONS or not colon:
        raise ValueError(_FORM)
    if rest.startswith("["):
        peer, closed, rest = rest[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(_FORM)
        more = split_fields(rest[1:]) if rest else []
    else:
        peer, *more = split_fields(rest)
    if len(more) > 2:
        raise ValueError(f"{_FORM}; an IPv6 address in brackets")
    protocol = more[0] if more else ""
    if more and protocol not in _PROTOCOLS:
        raise ValueError(f"a protocol: {', '.join(_PROTOCOLS)}")
    first, last = _ports(more[1], protocol) if len(more) == 2 else (0, 0)
    return (
        Traffic(direction=direction, peer=_peer(peer), protocol=protocol, first=first, last=last),
    )


def _peer(text: str) -> str:
    if text in ("any", "network"):
        return text
    subnet = read_subnet(text)
    return f"{subnet.at(0)}/{subnet.prefix}"


def _ports(text: str, protocol: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [_port(first), _port(last if dash else first)]
    if protocol not in _PORT_PROTOCOLS or numbers[0] > numbers[1]:
        raise ValueError(_FORM)
    return numbers[0], numbers[1]


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 16:
        raise ValueError("a port, from 1 to 65535")
    return int(text)


def from_traffic(value: Traffic) -> str:
    """Return the text of it."""
    peer = f"[{value.peer}]" if ":" in value.peer else value.peer
    words = [value.direction, peer]
    words += [value.protocol] if value.protocol else []
    if value.first:
        words.append(
            f"{value.first}-{value.last}" if value.last > value.first else f"{value.first}"
        )
    return ":".join(words)
