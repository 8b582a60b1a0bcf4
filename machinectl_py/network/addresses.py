"""Addresses and links of a machine's own network namespace, asked of the kernel by rtnetlink(7)."""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel.namespaces import setns
from machinectl_py.record import Record
from machinectl_py.thirdparty import need_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RT_SCOPE_HOST = 254  # <linux/rtnetlink.h>: 127.0.0.1 and the like, of no use to others
_IFA_F_DEPRECATED = 0x20  # <linux/if_addr.h>


class Address(Record):
    """An address of an interface."""

    interface: int  # its index in the machine
    address: str
    prefix: int  # length, in bits
    scope: int  # RT_SCOPE_: 0 universe, 253 link


def has_links(pid: int) -> bool:
    """Say whether the network namespace of a process holds anything but its loopback.

    From /proc/PID/net/dev, so that a machine without a network costs no netlink library.

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="surrogateescape") as file:
        names = [line.partition(":")[0].strip() for line in file.readlines()[2:]]
    return any(name != "lo" for name in names)


def addresses(pid: int) -> tuple[Address, ...]:
    """Return the addresses in the network namespace of a process as machined lists them.

    The widest scope first, then by interface; without loopback's and deprecated ones.

    Raises:
        PermissionError: the caller may not enter the namespace.
        UnsupportedError: pyroute2 is not installed.
    """
    found = [
        Address(
            interface=message["index"],
            # A point-to-point interface's own address is IFA_LOCAL; IPv6 has IFA_ADDRESS alone.
            address=message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"),
            prefix=message["prefixlen"],
            scope=message["scope"],
        )
        for message in _dump(pid, "get_addr")
        if message["scope"] < _RT_SCOPE_HOST and not message["flags"] & _IFA_F_DEPRECATED
    ]
    return tuple(sorted(found, key=lambda address: (address.scope, address.interface)))


def host_interfaces(pid: int) -> tuple[tuple[int, str], ...]:
    """Return (index, name) of the host's interfaces that a process's interfaces hang on.

    That is the host's end of each veth pair. An index alone proves nothing, as the other end may be
    in a third namespace: the link on this side must name the machine's in turn.

    Raises:
        PermissionError: the caller may not enter the namespace.
        UnsupportedError: pyroute2 is not installed.
    """
    peers = {
        (message.get_attr("IFLA_LINK"), message["index"])
        for message in _dump(pid, "get_links")
        if message.get_attr("IFLA_LINK")
    }
    found = []
    for name in os.listdir("/sys/class/net") if peers else ():
        index = _number(f"/sys/class/net/{name}/ifindex")
        link = _number(f"/sys/class/net/{name}/iflink")
        if (index, link) in peers:
            found.append((index, name))
    return tuple(sorted(found))


def _number(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except OSError:  # gone since it was listed, or no interface ("bonding_masters")
        return 0


def _dump(pid: int, request: str) -> list[Any]:
    """Return pyroute2's messages for a dump asked in the network namespace of a process.

    A netlink socket stays in the namespace it was made in, so we are in there for a moment only.
    """
    if not has_links(pid):
        return []
    library = need_part("pyroute2.iproute.linux")
    ours = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = -1
    try:
        theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(theirs, const.CLONE_NEWNET)
        try:
            with library.IPRoute() as route:
                return list(getattr(route, request)())
        finally:
            setns(ours, const.CLONE_NEWNET)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
