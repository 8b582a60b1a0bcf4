"""What went over the links of machines that run."""

from __future__ import annotations

from machinectl_py.errors import NotFoundError
from machinectl_py.kernel import rtnl
from machinectl_py.kernel.namespaces import InNetwork
from machinectl_py.plan.managed.definitions import network_names
from machinectl_py.plan.managed.members import read_members
from machinectl_py.record import Record
from machinectl_py.runtime.state import running_machines

_LOOPBACK = "lo"


class LinkStats(Record):
    """A link of a machine, and what went over it."""

    machine: str
    network: str  # the managed one that it leads to, "" for none
    link: str  # by its name inside
    counters: rtnl.Counters


def network_stats(names: tuple[str, ...] = ()) -> tuple[LinkStats, ...]:
    """Return what went over the links of all machines with a network of their own.

    Args:
        names: of machines and networks that alone are asked for; () for all.

    Raises:
        NotFoundError: a name is neither that of a machine that runs, nor of a network.
        OSError: the caller may not look.
    """
    machines = {state.name: state for state in running_machines()}
    known = {*machines, *network_names()}
    for name in names:
        if name not in known:
            raise NotFoundError(f"There is no machine '{name}' running, and no such network")
    found: list[LinkStats] = []
    for name, state in machines.items():
        if state.private_network:
            found += _of_machine(name, state.leader)
    return tuple(one for one in found if not names or {one.machine, one.network} & {*names})


def _of_machine(name: str, leader: int) -> list[LinkStats]:
    # By the host's end, which no one inside can rename.
    members = (one for one in read_members().members if one.machine == name)
    networks = {index: one.network for one in members if (index := rtnl.index_of(one.link))}
    try:
        with InNetwork(f"/proc/{leader}/ns/net"):
            links = rtnl.traffic()
    except FileNotFoundError:  # it has ended
        return []
    return [
        LinkStats(
            machine=name,
            network=networks.get(link.peer, ""),
            link=link.name,
            counters=link.counters,
        )
        for link in links
        if link.name != _LOOPBACK
    ]
