"""The processes of a machine: those in its cgroup, and those in its PID namespace."""

from __future__ import annotations

import os
import time

from machinectl_py.kernel import cgroupfs, procfs
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState

NOBODY = -1  # an id that the machine's map does not hold


class Process(Record):
    """A process of a machine."""

    pid: int  # as the host numbers it
    inside: int  # as the machine numbers it; 0 if it is not in the machine's PID namespace
    parent: int  # as the host numbers it
    uid: int  # inside; NOBODY if it is not mapped there
    user: str  # the machine's own name of it, or the number
    state: str  # a letter, as ps(1) has it
    memory: int  # resident, in bytes
    started: int  # CLOCK_REALTIME, in microseconds
    elapsed: int  # microseconds
    cgroup: str  # below the machine's payload, as "/init.scope"; beginning with ".." outside it
    depth: int  # generations below the first of the list
    command: str


class CgroupNode(Record):
    """A cgroup with its processes and those below it that hold any."""

    name: str
    processes: tuple[tuple[int, str], ...]  # (PID, command)
    children: tuple[CgroupNode, ...]


def payload_cgroup(state: MachineState) -> str:
    """Return the path of the cgroup that the machine sees as its root."""
    return f"{state.cgroup}/payload"


def member_pids(state: MachineState) -> tuple[int, ...]:
    """Return the PIDs of the processes in the machine's cgroup or in its PID namespace.

    The two differ where somebody entered by hand: nsenter(1) moves no cgroup, and a service may
    have a PID namespace of its own. Who may not read other processes' namespaces gets the
    cgroup's.
    """
    pids = set(cgroupfs.pids(payload_cgroup(state), recursive=True))
    try:
        namespace = os.readlink(f"/proc/{state.leader}/ns/pid")
    except OSError:
        return tuple(sorted(pids))
    for pid in procfs.all_pids():
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                pids.add(pid)
        except OSError:  # ended, or not ours to look at
            continue
    return tuple(sorted(pids))


def machine_processes(state: MachineState) -> tuple[Process, ...]:
    """Return the machine's processes, each after its parent, siblings by age."""
    from machinectl_py.runtime.inspect_os import user_names

    level = _pid_level(state.leader)
    try:
        uid_map = procfs.id_map(state.leader)
    except OSError:
        uid_map = ()
    names = user_names(state)
    found = {}
    for pid in member_pids(state):
        try:
            found[pid] = _process(state, pid, level, uid_map, names)
        except OSError:  # ended meanwhile
            continue
    return _by_parent(found)


def _pid_level(leader: int) -> int:
    """Return where in its processes' NSpid a machine's own PID stands; 0 if it is the host's."""
    try:
        return len(procfs.nspid(procfs.status_fields(leader))) - 1
    except OSError:
        return 0


def _process(
    state: MachineState,
    pid: int,
    level: int,
    uid_map: tuple[tuple[int, int, int], ...],
    names: dict[int, str],
) -> Process:
    stat, fields = procfs.stat(pid), procfs.status_fields(pid)
    numbers = procfs.nspid(fields)
    uid = inside_id(uid_map, int(fields["Uid"].split()[1]))
    elapsed = _elapsed(stat.start_ticks)
    return Process(
        pid=pid,
        inside=numbers[level] if level < len(numbers) else 0,
        parent=stat.parent,
        uid=uid,
        user="" if uid == NOBODY else names.get(uid, str(uid)),
        state=stat.state,
        memory=stat.rss_pages * os.sysconf("SC_PAGE_SIZE"),
        started=time.time_ns() // 1000 - elapsed,
        elapsed=elapsed,
        cgroup=_cgroup_inside(state, pid),
        depth=0,
        command=command_line(pid, stat.comm),
    )


def _elapsed(start_ticks: int) -> int:
    """Return how many microseconds ago a process started; its start counts in CLOCK_BOOTTIME."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return max(now - start_ticks * 1_000_000 // os.sysconf("SC_CLK_TCK"), 0)


def inside_id(id_map: tuple[tuple[int, int, int], ...], outside: int) -> int:
    """Return the id inside for one outside by the rows of a uid_map; NOBODY if it has none."""
    for first_inside, first_outside, count in id_map:
        if first_outside <= outside < first_outside + count:
            return first_inside + outside - first_outside
    return NOBODY


def command_line(pid: int, comm: str = "") -> str:
    """Return the command line of a process as ps(1) shows it, or its name in brackets.

    Raises:
        OSError: there is no such process.
    """
    return " ".join(procfs.cmdline(pid)) or f"[{comm or procfs.comm(pid)}]"


def _cgroup_inside(state: MachineState, pid: int) -> str:
    """Return the cgroup of a process as its machine sees it, in the manner of cgroup_namespaces(7).

    A process outside the machine's own root is shown from there, with "..".
    """
    payload = payload_cgroup(state)
    path = cgroupfs.directory_of(pid)
    if f"{path}/".startswith(f"{payload}/"):
        return path[len(payload) :] or "/"
    return "/" + os.path.relpath(path, payload)


def _by_parent(found: dict[int, Process]) -> tuple[Process, ...]:
    """Return the processes as a forest, each with its depth, in the order of ps --forest."""
    children: dict[int, list[Process]] = {}
    for process in sorted(found.values(), key=lambda one: (one.started, one.pid)):
        parent = process.parent if process.parent in found else 0
        children.setdefault(parent, []).append(process)
    ordered: list[Process] = []
    waiting = [(process, 0) for process in reversed(children.get(0, []))]
    while waiting:
        process, depth = waiting.pop()
        ordered.append(process.replace(depth=depth))
        waiting += [(child, depth + 1) for child in reversed(children.get(process.pid, []))]
    return tuple(ordered)


def cgroup_tree(path: str) -> CgroupNode:
    """Return the tree of a cgroup without the branches that hold no process; as systemd-cgls."""
    processes = []
    for pid in sorted(cgroupfs.pids(path)):
        try:
            processes.append((pid, command_line(pid)))
        except OSError:  # ended meanwhile
            continue
    below = (cgroup_tree(child) for child in sorted(cgroupfs.children(path)))
    return CgroupNode(
        name=path.rpartition("/")[2],
        processes=tuple(processes),
        children=tuple(node for node in below if node.processes or node.children),
    )
