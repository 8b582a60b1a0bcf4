"""What /proc tells of a process: proc(5), and the pages it has been split into since.

Reading /proc is racing: a process may end between two reads. Every reader here raises
`ProcessLookupError` or `FileNotFoundError` then (both are `OSError`), and callers that list
processes leave it out.
"""

from __future__ import annotations

import os

from machinectl_py.record import Record

_STAT_AFTER_COMM = 3  # the number of the first field after "(comm)" in proc_pid_stat(5)


class Mount(Record):
    """A line of /proc/PID/mountinfo; proc_pid_mountinfo(5)."""

    mount_id: int
    parent_id: int
    device: str  # "major:minor"
    root: str  # what of the file system is mounted, as a path in it
    target: str  # where, seen from the process's root
    options: str  # of this mount: "rw,nosuid"
    shared: int  # its peer group; 0 if it is not shared
    master: int  # the peer group it receives from; 0 if it is no slave
    propagate_from: int  # the nearest dominant peer group under the process's root; 0 if none
    unbindable: bool
    fstype: str
    source: str
    super_options: str  # of the file system

    @property
    def propagation(self) -> str:
        """The propagation type: "shared:N", "slave:N" of group N, both, "private" or "unbindable".

        See mount_namespaces(7); mountinfo writes the group of a slave's master as "master:N".
        """
        parts = [f"shared:{self.shared}"] if self.shared else []
        parts += [f"slave:{self.master}"] if self.master else []
        return ",".join(parts) or ("unbindable" if self.unbindable else "private")


class Stat(Record):
    """The fields of /proc/PID/stat that we use; proc_pid_stat(5)."""

    comm: str
    state: str  # a letter: "R", "S", "D", "Z", …
    parent: int
    start_ticks: int  # since boot
    rss_pages: int


def read_bytes(path: str) -> bytes:
    """Return what a file of /proc holds.

    Raises:
        OSError: with the path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError as error:  # ESRCH from read(2) has no path
        raise OSError(error.errno, f"read: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(fd)


def _read(path: str) -> str:
    return os.fsdecode(read_bytes(path))


def all_pids() -> tuple[int, ...]:
    """Return the PIDs of the processes that this /proc shows, ascending."""
    return tuple(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))


def comm(pid: int) -> str:
    """Return the name of the process's main thread, at most 15 bytes.

    Raises:
        OSError: there is no such process.
    """
    return _read(f"/proc/{pid}/comm").rstrip("\n")


def cmdline(pid: int) -> tuple[str, ...]:
    """Return the arguments of the process; none for a kernel thread or a zombie.

    Raises:
        OSError: there is no such process.
    """
    text = _read(f"/proc/{pid}/cmdline")
    return tuple(text.rstrip("\0").split("\0")) if text else ()


def stat(pid: int) -> Stat:
    """Return the numbers of the process.

    Raises:
        OSError: there is no such process.
    """
    text = _read(f"/proc/{pid}/stat")
    end = text.rindex(")")  # comm may hold anything, also ")" and blanks
    fields = text[end + 2 :].split()
    return Stat(
        comm=text[text.index("(") + 1 : end],
        state=fields[3 - _STAT_AFTER_COMM],
        parent=int(fields[4 - _STAT_AFTER_COMM]),
        start_ticks=int(fields[22 - _STAT_AFTER_COMM]),
        rss_pages=int(fields[24 - _STAT_AFTER_COMM]),
    )


def status_fields(pid: int | str) -> dict[str, str]:
    """Return the lines of /proc/PID/status by their name; proc_pid_status(5).

    Raises:
        OSError: there is no such process.
    """
    lines = (line.partition(":") for line in _read(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def nspid(fields: dict[str, str]) -> tuple[int, ...]:
    """Return the PIDs of a process in its nested PID namespaces, this /proc's own first."""
    return tuple(int(pid) for pid in fields["NSpid"].split())


def namespace_links(pid: int | str) -> dict[str, str]:
    """Return the namespaces of a process as /proc/PID/ns has them: {"mnt": "mnt:[4026531841]"}.

    Only those it is in itself: the links "…_for_children" are left out. A type that the kernel
    was built without is missing.

    Raises:
        OSError: no such process, or not allowed to look (PTRACE_MODE_READ).
    """
    directory = f"/proc/{pid}/ns"
    names = (name for name in os.listdir(directory) if not name.endswith("_for_children"))
    return {name: os.readlink(f"{directory}/{name}") for name in names}


def id_map(pid: int, kind: str = "uid") -> tuple[tuple[int, int, int], ...]:
    """Return the rows (inside, outside, count) of the process's "uid" or "gid" map.

    "Outside" are ids of the reader's user namespace; user_namespaces(7).

    Raises:
        OSError: there is no such process.
    """
    rows = (line.split() for line in _read(f"/proc/{pid}/{kind}_map").splitlines())
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in rows)


def boottime_offset(pid: int) -> int:
    """Return what CLOCK_BOOTTIME of a process's children adds to the initial one, in nanoseconds.

    From /proc/PID/timens_offsets, time_namespaces(7); 0 on a kernel without time namespaces.

    Raises:
        OSError: there is no such process.
    """
    try:
        text = _read(f"/proc/{pid}/timens_offsets")
    except FileNotFoundError:
        os.stat(f"/proc/{pid}")
        return 0
    for line in text.splitlines():
        clock, seconds, nanoseconds = line.split()
        if clock in ("boottime", "7"):  # a number before Linux 5.7
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0


def mountinfo(pid: int | str) -> tuple[Mount, ...]:
    """Return the mounts that a process sees, in the kernel's order.

    Raises:
        OSError: no such process, or not allowed to look (PTRACE_MODE_READ).
    """
    return tuple(parse_mount(line) for line in _read(f"/proc/{pid}/mountinfo").split("\n") if line)


def parse_mount(line: str) -> Mount:
    """Return the mount of a line of mountinfo."""
    left, _, right = line.partition(" - ")
    mount_id, parent_id, device, root, target, options, *optional = left.split(" ")
    # An empty source is an empty field, so the blanks are counted.
    fstype, source, super_options = right.split(" ", 2)
    tags = dict(tag.partition(":")[::2] for tag in optional if tag)
    return Mount(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=device,
        root=unescape(root),
        target=unescape(target),
        options=options,
        shared=int(tags.get("shared", 0)),
        master=int(tags.get("master", 0)),
        propagate_from=int(tags.get("propagate_from", 0)),
        unbindable="unbindable" in tags,
        fstype=unescape(fstype),
        source=unescape(source),
        super_options=unescape(super_options),
    )


def unescape(text: str) -> str:
    r"""Return a field of mountinfo with its octal escapes (\040, \011, \012, \134) undone."""
    first, *rest = text.split("\\")
    return first + "".join(
        chr(int(part[:3], 8)) + part[3:] if _is_octal(part[:3]) else "\\" + part for part in rest
    )


def _is_octal(text: str) -> bool:
    return len(text) == 3 and all(digit in "01234567" for digit in text)
