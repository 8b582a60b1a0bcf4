"""What a machine uses of the host, and how much it may; the kernel's cgroup-v2.rst."""

from __future__ import annotations

from machinectl_py.kernel import cgroupfs
from machinectl_py.record import Record


class Resources(Record):
    """Amounts; None where no controller of cgroup v2 counts, or where there is no limit."""

    tasks: int | None = None  # threads too, as the controller counts them
    tasks_max: int | None = None
    memory: int | None = None  # bytes
    memory_max: int | None = None
    cpu: int | None = None  # microseconds


def resources(cgroup: str) -> Resources:
    """Return what a cgroup, a path in the file system, uses and may use at most."""
    tasks = _amount(cgroup, "pids.current")
    return Resources(
        tasks=cgroupfs.thread_count(cgroup) if tasks is None else tasks,
        tasks_max=_amount(cgroup, "pids.max"),
        memory=_amount(cgroup, "memory.current"),
        memory_max=_amount(cgroup, "memory.max"),
        cpu=_cpu(cgroup),
    )


def _amount(cgroup: str, attribute: str) -> int | None:
    try:
        text = cgroupfs.read(cgroup, attribute).strip()
    except OSError:  # no such controller here, or the machine has just ended
        return None
    return None if text == "max" else int(text)


def _cpu(cgroup: str) -> int | None:
    """Return the time of cpu.stat, which is there without a controller too."""
    try:
        text = cgroupfs.read(cgroup, "cpu.stat")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1])
    return None
