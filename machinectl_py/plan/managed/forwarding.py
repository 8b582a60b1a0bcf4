"""Whether the kernel passes packets on: switched on for managed networks, and put back."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_IPV4 = "/proc/sys/net/ipv4/ip_forward"
_IPV6_LINKS = "/proc/sys/net/ipv6/conf"
_IPV6 = f"{_IPV6_LINKS}/all/forwarding"
_ALL = ("all", "default", "lo")


def has_ipv6() -> bool:
    """Say whether the kernel speaks IPv6 here."""
    return os.path.exists(_IPV6)


def switch_on(versions: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Have packets passed on; yield each file that is about to be written, and what it held.

    As a router the kernel believes router advertisements only with accept_ra=2, and the host's
    own address may be due to one; Documentation/networking/ip-sysctl.rst.

    Raises:
        OSError: /proc/sys is read-only, as in most containers.
    """
    if 4 in versions and _read(_IPV4) == "0":
        yield _IPV4, "0"
        write(_IPV4, "1")
    if 6 in versions and has_ipv6() and _read(_IPV6) == "0":
        for link in sorted(set(os.listdir(_IPV6_LINKS)) - set(_ALL)):
            path = f"{_IPV6_LINKS}/{link}/accept_ra"
            if _read(path) == "1":
                yield path, "1"
                write(path, "2")
        yield _IPV6, "0"
        write(_IPV6, "1")


def prepare_bridge(bridge: str) -> None:
    """Have the host believe no router advertisement of a bridge's ports, and answer at once.

    To the machines the kernel speaks from the bridge's link-local address, which would first be
    looked for elsewhere, for a second or two; its own network has nobody else of that address.

    Raises:
        OSError: /proc/sys is read-only.
    """
    for name in ("accept_ra", "accept_dad"):
        path = f"{_IPV6_LINKS}/{bridge}/{name}"
        if _read(path) not in ("", "0"):
            write(path, "0")


def is_on(version: int) -> bool:
    """Say whether packets of a version of IP are passed on."""
    return _read(_IPV4 if version == 4 else _IPV6) == "1"


def can_switch(version: int) -> bool:
    """Say whether that can be changed: /proc/sys is read-only in most containers."""
    path = _IPV4 if version == 4 else _IPV6
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def write(path: str, value: str) -> None:
    """Set a value; nothing if its link is gone.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(value)
    except FileNotFoundError:
        pass


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""
