"""The properties of a machine by name: those of org.freedesktop.machine1.Machine, then our own.

A table of functions, so that `show -p Leader` costs what the leader costs.
"""

from __future__ import annotations

import os
import time

from machinectl_py.kernel import cgroupfs, procfs
from machinectl_py.kernel.process import pidfd_open
from machinectl_py.layout import CLASS
from machinectl_py.runtime.state import read_notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.runtime.state import MachineState

    Value = str | int | bool | tuple[str, ...] | tuple[int, ...]


def _leader_pidfd_id(state: MachineState) -> int:
    """Return the inode of the leader's pidfd, which no other process gets until the next boot.

    0 before Linux 6.9, where pidfds are no files of pidfs but share one anonymous inode, as
    eventfds do to this day.
    """
    fd, anonymous = pidfd_open(state.leader), os.eventfd(0)
    try:
        found = os.fstat(fd)
        return 0 if found.st_dev == os.fstat(anonymous).st_dev else found.st_ino
    finally:
        os.close(fd)
        os.close(anonymous)


def _network_interfaces(state: MachineState) -> tuple[int, ...]:
    if state.network_interfaces:
        return state.network_interfaces
    from machinectl_py.runtime.inspect_network import host_interfaces

    return tuple(index for index, _ in host_interfaces(state))


def _addresses(state: MachineState) -> tuple[str, ...]:
    from machinectl_py.runtime.inspect_network import machine_addresses

    return machine_addresses(state)


def _os_release(key: str) -> Callable[[MachineState], str]:
    def read(state: MachineState) -> str:
        from machinectl_py.runtime.inspect_os import os_release

        return os_release(state).get(key, "")

    return read


def _bounding_set(state: MachineState) -> tuple[str, ...]:
    from machinectl_py.kernel.capabilities import mask_names

    return mask_names(state.capabilities)


def ready_after(state: MachineState) -> int:
    """Return the microseconds from the start of the machine to READY=1; 0 if it is not ready."""
    ready = read_notify(state.name).ready
    return max(ready - state.started_monotonic, 1) if ready else 0


def uptime(state: MachineState) -> int:
    """Return what uptime(1) inside counts, in microseconds: CLOCK_BOOTTIME there.

    Raises:
        OSError: the leader has ended.
    """
    here = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return (
        here + procfs.boottime_offset(state.leader) - procfs.boottime_offset(os.getpid())
    ) // 1000


# In the order in which machinectl prints them; ours follow.
PROPERTIES: dict[str, Callable[[MachineState], Value]] = {
    "Name": lambda state: state.name,
    "Id": lambda state: state.machine_id,
    "Timestamp": lambda state: state.started,
    "TimestampMonotonic": lambda state: state.started_monotonic,
    "Service": lambda state: state.service,
    "Unit": lambda state: state.unit,
    "Leader": lambda state: state.leader,
    "LeaderPIDFDId": _leader_pidfd_id,
    "Class": lambda _: CLASS,
    "RootDirectory": lambda state: state.root,
    "NetworkInterfaces": _network_interfaces,
    "State": lambda state: state.phase,
    "Supervisor": lambda state: state.supervisor,
    "Manager": lambda state: state.manager,
    "CGroup": lambda state: state.cgroup,
    "Frozen": lambda state: cgroupfs.is_frozen(f"{state.cgroup}/payload"),
    "Registered": lambda state: state.registered,
    "Image": lambda state: state.image,
    "Driver": lambda state: state.driver,
    "Payload": lambda state: state.kind,
    "Boots": lambda state: state.boots,
    "Ready": lambda state: read_notify(state.name).ready > 0,
    "ReadyTimestampMonotonic": lambda state: read_notify(state.name).ready,
    "ReadyUSec": ready_after,
    "StatusText": lambda state: read_notify(state.name).status,
    "UptimeUSec": uptime,
    "TasksCurrent": lambda state: len(cgroupfs.pids(f"{state.cgroup}/payload", recursive=True)),
    "OS": _os_release("ID"),
    "OSVersion": _os_release("VERSION_ID"),
    "OSPrettyName": _os_release("PRETTY_NAME"),
    "PrivateUsers": lambda state: state.uid_count > 0,
    "UIDShift": lambda state: state.uid_base,
    "UIDCount": lambda state: state.uid_count,
    "PrivateNetwork": lambda state: state.private_network,
    "Addresses": _addresses,
    "CapabilityBoundingSet": _bounding_set,
    "NoNewPrivileges": lambda state: state.no_new_privileges,
    "SeccompFilter": lambda state: state.seccomp,
}


def read_properties(state: MachineState, names: tuple[str, ...] = ()) -> dict[str, Value]:
    """Return the properties of these names in their order, or all."""
    return {name: PROPERTIES[name](state) for name in names or PROPERTIES}
