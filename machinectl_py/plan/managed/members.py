"""Which machine is in which managed network now, and which networks are up: a file for all."""

from __future__ import annotations

import os

from machinectl_py.codec import decode, encode
from machinectl_py.config.managed_network import ManagedNetwork  # noqa: TC001 - read from data
from machinectl_py.config.spec import Traffic  # noqa: TC001 - read from data
from machinectl_py.layout import RUN_DIR
from machinectl_py.plan.managed.definitions import remove_file, write_file
from machinectl_py.record import Record

_FILE = f"{RUN_DIR}/members"


class Member(Record):
    """A machine in a network."""

    machine: str
    network: str
    number: int  # of its address in each subnet
    mac: str
    link: str  # the port of the bridge
    allow: tuple[Traffic, ...] = ()
    deny: tuple[Traffic, ...] = ()

    def addresses(self, network: ManagedNetwork) -> tuple[str, ...]:
        """Return its addresses: IPv4, IPv6, as far as the network has them."""
        return tuple(subnet.at(self.number) for subnet in network.subnets())


class Up(Record):
    """A network that is up, as it was defined when it came up."""

    namespace: int  # inode of the network namespace that its bridge is in
    network: ManagedNetwork
    mac: str  # of the bridge


class Switch(Record):
    """A file of /proc/sys that was written, and what it held before."""

    namespace: int  # inode of the network namespace
    path: str
    before: str


class Members(Record):
    """All of it."""

    up: tuple[Up, ...] = ()
    members: tuple[Member, ...] = ()
    switches: tuple[Switch, ...] = ()

    def of(self, network: str) -> tuple[Member, ...]:
        """Return the members of a network."""
        return tuple(member for member in self.members if member.network == network)

    def find_up(self, network: str) -> Up | None:
        """Return a network that is up, or None."""
        return next((up for up in self.up if up.network.name == network), None)

    def others(self, network: str) -> tuple[ManagedNetwork, ...]:
        """Return the other networks that members of one are in."""
        machines = {member.machine for member in self.of(network)}
        names = {one.network for one in self.members if one.machine in machines} - {network}
        return tuple(up.network for up in self.up if up.network.name in names)

    def without(self, machine: str, network: str) -> Members:
        """Return the same without a machine in a network."""
        gone = (machine, network)
        return self.replace(
            members=tuple(one for one in self.members if (one.machine, one.network) != gone)
        )


def read_members() -> Members:
    """Return what there is now."""
    try:
        with open(_FILE, encoding="utf-8") as file:
            return Members.from_data(decode(file.read()))
    except FileNotFoundError:
        return Members()


def save_members(members: Members) -> None:
    """Write it whole, with the lock held; remove it if nothing is left.

    Raises:
        OSError: it cannot be written.
    """
    if members == Members():
        remove_file(_FILE)
        return
    os.makedirs(RUN_DIR, mode=0o755, exist_ok=True)
    write_file(_FILE, encode(members.to_data()))
