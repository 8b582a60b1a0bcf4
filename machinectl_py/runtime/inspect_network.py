"""The network of a machine, seen from outside; one that shares the host's has none of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState


def machine_addresses(state: MachineState) -> tuple[str, ...]:
    """Return the machine's own addresses, the widest scope first.

    None where the caller may not look: a listing goes on without them.
    """
    if not state.private_network:
        return ()
    from machinectl_py.network.addresses import addresses

    try:
        return tuple(found.address for found in addresses(state.leader))
    except OSError:
        return ()


def host_interfaces(state: MachineState) -> tuple[tuple[int, str], ...]:
    """Return (index, name) of the host's interfaces that belong to the machine; as above."""
    if not state.private_network:
        return ()
    from machinectl_py.network import addresses

    try:
        return addresses.host_interfaces(state.leader)
    except OSError:
        return ()


def machine_network(state: MachineState) -> str:
    """Return the managed network that a machine is in, "" if it is in none."""
    if not state.private_network:
        return ""
    from machinectl_py.plan.managed.members import read_members

    found = (one.network for one in read_members().members if one.machine == state.name)
    return " ".join(found)
