"""Links and ports from text and back; systemd-nspawn(1), --network-interface= and the like."""

from __future__ import annotations

from machinectl_py.config.spec import NetworkPair, PortSpec
from machinectl_py.config.words import split_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAME_MAX = 15  # IFNAMSIZ - 1 of <linux/if.h>
_PROTOCOLS = ("tcp", "udp", "sctp")


def interface(text: str) -> str:
    """Return a valid name of a link."""
    valid = text.isascii() and text.isprintable() and not set(text) & set(" :/%")
    if not 0 < len(text) <= _NAME_MAX or not valid or text in (".", "..", "all", "default"):
        raise ValueError(f"the name of a link, of at most {_NAME_MAX} characters")
    if text.isdigit():
        raise ValueError("the name of a link, which is no number")
    return text


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
    """Return a forwarded port of [PROTOCOL:]HOST[:INSIDE]."""
    first, colon, rest = text.partition(":")
    protocol = first if first in _PROTOCOLS else "tcp"
    numbers = rest if colon and first in _PROTOCOLS else text
    host, colon, inside = numbers.partition(":")
    return (
        PortSpec(protocol=protocol, host=_number(host), inside=_number(inside if colon else host)),
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) < 1 << 16:
        raise ValueError("[PROTOCOL:]PORT[:PORT], such as tcp:8080:80")
    return int(text)


def from_port(value: PortSpec) -> str:
    """Return the text of PROTOCOL:HOST:INSIDE."""
    return f"{value.protocol}:{value.host}:{value.inside}"
