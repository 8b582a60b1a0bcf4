"""Managed networks are defined and given up."""

from __future__ import annotations

from machinectl_py.errors import ConflictError
from machinectl_py.plan.managed.definitions import (
    NetworksLock,
    definition_path,
    find_network,
    need_network,
    remove_file,
    save_network,
)
from machinectl_py.plan.managed.leases import forget_leases
from machinectl_py.plan.managed.members import read_members
from machinectl_py.plan.managed.propose import propose_network, taken_subnets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.managed_network import ManagedNetwork


def create_network(
    name: str, host_id: str, *, ipv4: str | None, ipv6: str | None, nat: bool
) -> ManagedNetwork:
    """Define a network that overlaps with nothing, and return it.

    Args:
        name: of the network.
        host_id: the host's machine ID.
        ipv4: the bridge's address with its prefix, "" for none; None picks one.
        ipv6: idem.
        nat: whether it is hidden from the world.

    Raises:
        ConflictError: there is one of this name, or no subnet is free.
        OSError: the definition cannot be written.
    """
    with NetworksLock():
        if find_network(name):
            raise ConflictError(
                f"There is a network '{name}' already", f"{definition_path(name)} defines it."
            )
        network = propose_network(name, host_id, taken_subnets(), ipv4=ipv4, ipv6=ipv6, nat=nat)
        save_network(network)
    return network


def delete_network(name: str) -> None:
    """Remove the definition of a network, and its leases.

    Raises:
        NotFoundError: there is none.
        ConflictError: machines are in it.
    """
    with NetworksLock():
        need_network(name)
        if inside := [member.machine for member in read_members().of(name)]:
            raise ConflictError(f"The network '{name}' is in use by {', '.join(sorted(inside))}")
        remove_file(definition_path(name))
        forget_leases(name)
