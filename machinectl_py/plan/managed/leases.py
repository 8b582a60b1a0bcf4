"""The numbers of machines in a network: kept on disk, so that addresses stay."""

from __future__ import annotations

import os

from machinectl_py.codec import decode, encode
from machinectl_py.config.managed_network import ManagedNetwork  # noqa: TC001 - in signatures
from machinectl_py.errors import ConflictError
from machinectl_py.layout import NETWORK_LEASES_DIR
from machinectl_py.plan.managed.definitions import remove_file, write_file
from machinectl_py.plan.managed.numbers import MOST, is_usable
from machinectl_py.plan.siphash import siphash24
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_KEY = bytes.fromhex("0b9fd6a1f4b24c0e9a5d7e3c2f61b8d0")


class Lease(Record):
    """The number of a machine in a network."""

    machine: str
    number: int
    used: int  # CLOCK_REALTIME of when it was last asked for, in microseconds


def leases_path(network: str) -> str:
    """Return the file of a network's leases."""
    return f"{NETWORK_LEASES_DIR}/{network}"


def read_leases(network: str) -> tuple[Lease, ...]:
    """Return the leases of a network."""
    try:
        with open(leases_path(network), encoding="utf-8") as file:
            return tuple(map(Lease.from_data, decode(file.read())))
    except (FileNotFoundError, ValueError, TypeError):  # lost or torn: they are given anew
        return ()


def write_leases(network: str, leases: tuple[Lease, ...]) -> None:
    """Keep the leases of a network.

    Raises:
        OSError: they cannot be written.
    """
    os.makedirs(NETWORK_LEASES_DIR, mode=0o755, exist_ok=True)
    write_file(leases_path(network), encode([lease.to_data() for lease in leases]))


def forget_leases(network: str) -> None:
    """Remove the leases of a network."""
    remove_file(leases_path(network))


def with_lease(
    leases: tuple[Lease, ...],
    network: ManagedNetwork,
    machine: str,
    now: int,
    *,
    running: Collection[str] = (),
    wanted: int = 0,
) -> tuple[tuple[Lease, ...], int]:
    """Return the leases with one for a machine, and its number; pure.

    Args:
        leases: those there are.
        network: what they are of.
        machine: its name.
        now: CLOCK_REALTIME, in microseconds.
        running: the machines whose numbers are in use, and stay theirs.
        wanted: the number that it shall have; 0 for the one it had, or any.

    Raises:
        ConflictError: there is no number left, or the wanted one is another machine's.
    """
    own = next((lease for lease in leases if lease.machine == machine), None)
    others = [lease for lease in leases if lease.machine != machine]
    if wanted:
        holder = next((lease for lease in others if lease.number == wanted), None)
        if holder and holder.machine in running:
            raise ConflictError(
                f"The address asked for is that of machine '{holder.machine}', which runs"
            )
        others = [lease for lease in others if lease is not holder]
        number = wanted
    elif own and is_usable(network, own.number):
        number = own.number
    else:
        others, number = _find_free(others, network, machine, running)
    others.append(Lease(machine=machine, number=number, used=now))
    return tuple(others), number


def _find_free(
    leases: list[Lease], network: ManagedNetwork, machine: str, running: Collection[str]
) -> tuple[list[Lease], int]:
    size = min(MOST, *(1 << subnet.host_bits for subnet in network.subnets()))
    used = {lease.number for lease in leases}
    start = siphash24(machine.encode(), _KEY)
    for step in range(size):
        number = (start + step) % size
        if number not in used and is_usable(network, number):
            return leases, number
    idle = [lease for lease in leases if lease.machine not in running]
    idle = [lease for lease in idle if is_usable(network, lease.number)]
    if not idle:
        raise ConflictError(f"The network '{network.name}' has no address left")
    oldest = min(idle, key=lambda lease: lease.used)
    return [lease for lease in leases if lease is not oldest], oldest.number
