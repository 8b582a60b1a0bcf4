"""The host's own resolver, where that is systemd-resolved; org.freedesktop.resolve1(5)."""

from __future__ import annotations

import _socket
import os

from machinectl_py.errors import PymachineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.managers.bus import Arguments

_SOCKET = "/run/systemd/resolve/io.systemd.Resolve"
_CLOSE = (-1, None)


def tell_resolved(index: int, servers: Iterable[str], domain: str) -> None:
    """Have the host ask the servers of a link for the names of a domain, and for no others.

    Nothing where systemd-resolved does not run, or in another network than ours. It forgets this
    with the link.

    Args:
        index: of the link.
        servers: their addresses.
        domain: such as "lab", for "web.lab".

    Raises:
        PymachineError: refused; the line says why.
    """
    if not _is_ours():
        return
    from machinectl_py.managers.bus import BusError, resolve_bus

    try:
        with resolve_bus() as bus:
            bus.call_raw("SetLinkDNS", [(ord("i"), index), *_servers(servers)])
            bus.call_raw("SetLinkDomains", [(ord("i"), index), *_routing_domain(domain)])
            bus.call("SetLinkDefaultRoute", "ib", index, False)
            bus.call("SetLinkDNSSEC", "is", index, "no")  # the domain is nobody's to sign
    except BusError as error:
        raise PymachineError(
            f"systemd-resolved does not take '{domain}': {error.message}"
        ) from error


def _is_ours() -> bool:
    if not os.path.exists(_SOCKET):
        return False
    try:
        return os.stat("/proc/self/ns/net").st_ino == os.stat("/proc/1/ns/net").st_ino
    except OSError:
        return False


def _servers(servers: Iterable[str]) -> Arguments:
    """Return an argument of the type a(iay)."""
    arguments: Arguments = [(ord("a"), b"(iay)")]
    for server in servers:
        family = _socket.AF_INET6 if ":" in server else _socket.AF_INET
        octets = [(ord("y"), octet) for octet in _socket.inet_pton(family, server)]
        arguments += [(ord("r"), b"iay"), (ord("i"), family), (ord("a"), b"y"), *octets]
        arguments += [_CLOSE, _CLOSE]
    return [*arguments, _CLOSE]


def _routing_domain(domain: str) -> Arguments:
    """Return an argument of the type a(sb): names below it are asked for there alone."""
    pair: Arguments = [(ord("r"), b"sb"), (ord("s"), domain.encode()), (ord("b"), True), _CLOSE]
    return [(ord("a"), b"(sb)"), *pair, _CLOSE]
