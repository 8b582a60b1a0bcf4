"""Addresses and links of a machine's own network namespace, asked of the kernel by rtnetlink(7)."""

from __future__ import annotations

import os

from machinectl_py.kernel import rtnl
from machinectl_py.kernel.namespaces import InNetwork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.kernel.rtnl import Address


def has_links(pid: int) -> bool:
    """Say whether the network namespace of a process holds anything but its loopback.

    From /proc/PID/net/dev, so that one of a machine without a network need not be entered.

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
    """
    if not has_links(pid):
        return ()
    with InNetwork(f"/proc/{pid}/ns/net"):
        return rtnl.addresses()


def host_interfaces(pid: int) -> tuple[tuple[int, str], ...]:
    """Return (index, name) of the host's interfaces that a process's interfaces hang on.

    That is the host's end of each veth pair. An index alone proves nothing, as the other end may be
    in a third namespace: the link on this side must name the machine's in turn.

    Raises:
        PermissionError: the caller may not enter the namespace.
    """
    if not has_links(pid):
        return ()
    with InNetwork(f"/proc/{pid}/ns/net"):
        peers = {(link.peer, link.index) for link in rtnl.links() if link.peer}
    found = []
    for name in os.listdir("/sys/class/net") if peers else ():
        index = _number(f"/sys/class/net/{name}/ifindex")
        link = _number(f"/sys/class/net/{name}/iflink")
        if (index, link) in peers:
            found.append((index, name))
    return tuple(sorted(found))


def _number(path: str) -> int:
    try:
        with open(path, encoding="utf-8") as file:
            return int(file.read())
    except OSError:  # gone since it was listed, or no interface ("bonding_masters")
        return 0
