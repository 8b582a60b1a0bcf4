"""Links and ports from text and back; systemd-nspawn(1), --network-interface= and the like."""

from __future__ import annotations

import _socket

from machinectl_py.config.spec import NetworkPair, PortSpec
from machinectl_py.config.words import split_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAME_MAX = 15  # IFNAMSIZ - 1 of <linux/if.h>
_RATES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORT = "[PROTOCOL:][ADDRESS:]PORT[:PORT], such as tcp:8080:80"


def interface(text: str) -> str:
    """Return a valid name of a link."""
    valid = text.isascii() and text.isprintable() and not set(text) & set(" :/%")
    if not 0 < len(text) <= _NAME_MAX or not valid or text in (".", "..", "all", "default"):
        raise ValueError(f"the name of a link, of at most {_NAME_MAX} characters")
    if text.isdigit():
        raise ValueError("the name of a link, which is no number")
    return text


def mac(text: str) -> str:
    """Return the link-layer address of one station, in its usual form."""
    octets = text.replace("-", ":").split(":")
    digits = "0123456789abcdefABCDEF"
    if len(octets) != 6 or not all(len(o) in (1, 2) and not o.strip(digits) for o in octets):
        raise ValueError("a link-layer address, such as 02:00:00:00:00:01")
    numbers = [int(octet, 16) for octet in octets]
    if numbers[0] & 1 or not any(numbers):
        raise ValueError("the link-layer address of one station, no group's")
    return ":".join(f"{number:02x}" for number in numbers)


def rate(text: str) -> int:
    """Return bits a second of a number with K, M or G: powers of 1000, as tc(8) has them."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _RATES else (text, "")
    bits = int(number) * _RATES[unit] if number.isascii() and number.isdigit() else 0
    if not 8000 <= bits < 8 << 32:
        raise ValueError("bits a second, from 8K to 34G, such as 10M")
    return bits


def from_rate(bits: int) -> str:
    """Return the text of it."""
    unit = next(unit for unit in "GMK" if bits % _RATES[unit] == 0) if bits % 1000 == 0 else ""
    return f"{bits // _RATES[unit]}{unit}"


def zone(text: str) -> str:
    """Return the name of a zone, whose bridge is vz-NAME."""
    interface(f"vz-{text}")
    if not text:
        raise ValueError("the name of a zone")
    return text


def interface_pair(text: str) -> tuple[NetworkPair, ...]:
    """Return a link here and its name inside, by default the same, of HOST[:INSIDE]."""
    return (_pair(text, lambda host: host),)


def macvlan_pair(text: str) -> tuple[NetworkPair, ...]:
    """Return a link here and the name of its child inside, by default mv-HOST."""
    return (_pair(text, lambda host: f"mv-{host}"),)


def ipvlan_pair(text: str) -> tuple[NetworkPair, ...]:
    """Return a link here and the name of its child inside, by default iv-HOST."""
    return (_pair(text, lambda host: f"iv-{host}"),)


def veth_pair(text: str) -> tuple[NetworkPair, ...]:
    """Return the names of both ends of a further virtual link."""
    return (_pair(text, lambda host: host),)


def _pair(text: str, default: Callable[[str], str]) -> NetworkPair:
    host, *inside = split_fields(text)
    if len(inside) > 1:
        raise ValueError("NAME[:NAME]")
    # One that is too long by its prefix is shortened later, and kept as an alternative name.
    return NetworkPair(
        host=interface(host), inside=interface(inside[0]) if inside else default(host)
    )


def from_pair(pair: NetworkPair) -> str:
    """Return the text of HOST:INSIDE."""
    return f"{pair.host}:{pair.inside}"


def port(text: str) -> tuple[PortSpec, ...]:
    """Return forwarded ports of [PROTOCOL:][ADDRESS:]HOST[-LAST][:INSIDE[-LAST]].

    An IPv6 address stands in brackets. Address and ranges are our own; systemd-nspawn has neither.
    """
    first, colon, rest = text.partition(":")
    is_protocol = bool(colon) and first in _PROTOCOLS
    address, numbers = _address(rest if is_protocol else text)
    host, colon, inside = numbers.partition(":")
    start, count = _range(host)
    target, target_count = _range(inside if colon else host)
    if count != target_count:
        raise ValueError("as many ports inside as outside")
    return (
        PortSpec(
            protocol=first if is_protocol else "tcp",
            host=start,
            inside=target,
            count=count,
            address=address,
        ),
    )


def _address(text: str) -> tuple[str, str]:
    """Return the address before the ports, in its usual form or "", and the ports."""
    if text.startswith("["):
        address, closed, rest = text[1:].partition("]:")
        family = _socket.AF_INET6
    else:
        address, closed, rest = text.partition(":")
        family = _socket.AF_INET
        if "." not in address:
            return "", text
    try:
        packed = _socket.inet_pton(family, address)
    except OSError:
        packed = b""
    if not closed or not packed:
        raise ValueError(f"{_PORT}, with an IPv6 address in brackets")
    # To all addresses is the same as without one, but for the family.
    return _socket.inet_ntop(family, packed), rest


def _range(text: str) -> tuple[int, int]:
    """Return the first port and how many there are."""
    first, dash, last = text.partition("-")
    start, end = _number(first), _number(last if dash else first)
    if end < start:
        raise ValueError("a range that ascends")
    return start, end - start + 1


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) < 1 << 16:
        raise ValueError(_PORT)
    return int(text)


def ports_overlap(one: PortSpec, other: PortSpec) -> bool:
    """Say whether a packet can be meant for both; as bind(2), any address overlaps with each."""
    if one.protocol != other.protocol:
        return False
    if one.host + one.count <= other.host or other.host + other.count <= one.host:
        return False
    return _addresses_overlap(one.address, other.address)


def _addresses_overlap(one: str, other: str) -> bool:
    if not one or not other or one == other:
        return True
    return (":" in one) == (":" in other) and bool({one, other} & {"0.0.0.0", "::"})  # noqa: S104


def from_port(value: PortSpec) -> str:
    """Return the text of PROTOCOL:HOST:INSIDE, with ADDRESS and ranges where there are any."""
    address = f"[{value.address}]:" if ":" in value.address else f"{value.address}:"
    host, inside = (_from_range(start, value.count) for start in (value.host, value.inside))
    return f"{value.protocol}:{address if value.address else ''}{host}:{inside}"


def _from_range(start: int, count: int) -> str:
    return f"{start}-{start + count - 1}" if count > 1 else f"{start}"
