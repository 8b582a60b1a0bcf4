"""What was probed of this kernel and host, frozen; the planner knows the host by this alone."""

from __future__ import annotations

import os

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    ManagerKind = Literal["systemd", "unit", "embedded"]


class HostFacts(Record):
    """The host, as far as a plan depends on it."""

    manager: ManagerKind
    machined: bool  # org.freedesktop.machine1 can be had
    time_namespace: bool  # Linux 5.6
    foreground: bool = False  # launcher and supervisor are one process: `run`
    boottime: int = 0  # CLOCK_BOOTTIME now, in nanoseconds
    monotonic: int = 0  # CLOCK_MONOTONIC now, in nanoseconds
    os_release: str = "/usr/lib/os-release"  # the host's
    tree_init: str = ""  # the init found in the root; "" if the payload is a command
    payload_in_tree: bool = True


def probe_facts(*, manager: ManagerKind, machined: bool, foreground: bool, init: str) -> HostFacts:
    """Probe the host.

    Args:
        manager: the cgroup manager that was chosen.
        machined: whether the machine can be registered.
        foreground: whether one process is launcher and supervisor.
        init: path inside the root of the init to boot, or "".
    """
    import time

    etc = "/etc/os-release"
    return HostFacts(
        manager=manager,
        machined=machined,
        time_namespace=os.path.exists("/proc/self/ns/time_for_children"),
        foreground=foreground,
        boottime=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        monotonic=time.monotonic_ns(),
        os_release=etc if os.path.exists(etc) else "/usr/lib/os-release",
        tree_init=init,
    )
