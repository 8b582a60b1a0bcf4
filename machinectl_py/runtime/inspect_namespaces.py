"""The namespaces of a machine, compared with the host's: which are its own, and who is in them."""

from __future__ import annotations

from machinectl_py.kernel import cgroupfs, procfs
from machinectl_py.kernel.namespaces import NAMESPACE_FLAGS
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.runtime.state import MachineState

    HostProcess = Literal["PID 1", "self"]

_KTHREADD = 2  # the parent of all kernel threads


class Namespace(Record):
    """A type of namespace, and the one of it that a machine's leader is in."""

    type: str  # as in /proc/PID/ns: "mnt", "pid", …
    host: str  # the host's, as "mnt:[4026531841]"
    machine: str  # the leader's; "" if the caller may not look
    shared: bool  # whether the two are one
    members: int  # how many of the machine's processes are in the leader's
    others: tuple[tuple[int, str], ...]  # (PID, name) of processes in it that are not the machine's


class NamespaceView(Record):
    """All types, and what stands behind the numbers."""

    host_process: HostProcess  # whose namespaces are called the host's
    processes: int  # of the machine
    namespaces: tuple[Namespace, ...]


def machine_namespaces(state: MachineState) -> NamespaceView:
    """Return the machine's namespaces, in the order of namespaces(7).

    Types that the kernel was built without are left out. The machine's processes are those in
    its cgroup, the supervisor's beside the payload's.
    """
    host_process, host = _host_links()
    leader = _links(state.leader)
    inside = set(cgroupfs.pids(f"{state.cgroup}/payload", recursive=True))
    ours = set(cgroupfs.pids(state.cgroup, recursive=True)) | {state.supervisor}
    links = {pid: _links(pid) for pid in procfs.all_pids()}
    namespaces = tuple(
        Namespace(
            type=kind,
            host=host[kind],
            machine=leader.get(kind, ""),
            shared=host[kind] == leader.get(kind),
            members=_count(links, inside, kind, leader.get(kind, "")),
            others=_others(links, inside | ours, kind, leader.get(kind, "")),
        )
        for kind in NAMESPACE_FLAGS
        if kind in host
    )
    return NamespaceView(host_process=host_process, processes=len(inside), namespaces=namespaces)


def _host_links() -> tuple[HostProcess, dict[str, str]]:
    """Return the host's namespaces: those of PID 1, or our own where it hides them."""
    links = _links(1)
    return ("PID 1", links) if links else ("self", procfs.namespace_links("self"))


def _links(pid: int) -> dict[str, str]:
    """Return the namespaces of a process; none if it has ended or is not ours to look at."""
    try:
        return procfs.namespace_links(pid)
    except OSError:
        return {}


def _count(links: dict[int, dict[str, str]], pids: set[int], kind: str, link: str) -> int:
    return sum(1 for pid in pids if link and links.get(pid, {}).get(kind) == link)


def _others(
    links: dict[int, dict[str, str]], ours: set[int], kind: str, link: str
) -> tuple[tuple[int, str], ...]:
    """Return PID and name of the strangers in a namespace, kernel threads last."""
    found = []
    for pid, its in links.items():
        if link and its.get(kind) == link and pid not in ours:
            try:
                stat = procfs.stat(pid)
            except OSError:  # ended meanwhile
                continue
            found.append((_KTHREADD in (pid, stat.parent), pid, stat.comm))
    return tuple((pid, name) for _, pid, name in sorted(found))
