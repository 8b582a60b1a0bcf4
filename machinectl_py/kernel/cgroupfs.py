"""The cgroup2 file system: making, filling, killing and removing cgroups; cgroups(7).

A cgroup is named by its absolute path in the file system. See the kernel's
Documentation/admin-guide/cgroup-v2.rst for the files written here.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Where the hierarchy is when cgroup v2 stands alone, and beside v1 as systemd's hybrid layout.
_USUAL_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_SIGKILL = 9
_LOOK_AGAIN = 0.02  # seconds


def find_cgroup2() -> str:
    """Return the mount point of the cgroup2 hierarchy.

    Raises:
        FileNotFoundError: it is not mounted.
    """
    for path in _USUAL_MOUNTS:
        # Only the root of a cgroup2 mount has this file there: cheaper than reading mountinfo.
        if os.path.exists(f"{path}/cgroup.controllers"):
            return path
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return before.split()[4]
    raise FileNotFoundError(errno.ENOENT, "No cgroup2 file system is mounted", _USUAL_MOUNTS[0])


def cgroup_of(pid: int) -> str:
    """Return the cgroup of a process within the hierarchy, as "/a/b"; "/" is the root.

    The path begins at the root of the caller's cgroup namespace.

    Raises:
        FileNotFoundError: there is no such process, or it is in no cgroup2 hierarchy.
    """
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    raise FileNotFoundError(errno.ENOENT, "The process is in no cgroup2", f"/proc/{pid}/cgroup")


def directory_of(pid: int) -> str:
    """Return the cgroup of a process as a path in the file system."""
    return f"{find_cgroup2()}{cgroup_of(pid)}".rstrip("/")


def contains(path: str, pid: int) -> bool:
    """Say whether the process lives in the cgroup or below it."""
    return f"{directory_of(pid)}/".startswith(f"{path}/")


def make(path: str) -> bool:
    """Make a cgroup; its parent must exist. Return whether it is new.

    Raises:
        OSError: with the path; EAGAIN where cgroup.max.descendants or .depth is reached.
    """
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def open_dir(path: str) -> int:
    """Open a cgroup for clone3(2)'s CLONE_INTO_CGROUP; close-on-exec."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def children(path: str) -> tuple[str, ...]:
    """Return the paths of the cgroups right below; none if it is gone."""
    try:
        with os.scandir(path) as entries:
            return tuple(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return ()


def move(path: str, pid: int) -> None:
    """Move a process, with all its threads, into the cgroup; cgroup.procs.

    The first migration after a while waits for a grace period of the kernel (10 ms).

    Raises:
        OSError: EBUSY, the cgroup hands controllers to its children; ESRCH, no such process.
    """
    write(path, "cgroup.procs", str(pid))


def write(path: str, attribute: str, value: str) -> None:
    """Write a file of the cgroup, such as "memory.max".

    Raises:
        OSError: with the path of the file.
    """
    name = f"{path}/{attribute}"
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {error.strerror}", name) from error
    finally:
        os.close(fd)


def read(path: str, attribute: str) -> str:
    """Return the text of a file of the cgroup.

    Raises:
        OSError: with the path of the file.
    """
    with open(f"{path}/{attribute}", encoding="utf-8") as file:
        return file.read()


def pids(path: str, *, recursive: bool = False) -> tuple[int, ...]:
    """Return the processes in the cgroup, and with `recursive` those below it; none if it is gone.

    Processes that the caller's PID namespace does not number are left out.
    """
    return tuple(_pids(path, recursive))


def thread_count(path: str) -> int:
    """Return how many threads live in the cgroup and below it; 0 if it is gone."""
    try:
        own = len(read(path, "cgroup.threads").split())
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return 0
    return own + sum(map(thread_count, children(path)))


def _pids(path: str, recursive: bool) -> Iterator[int]:
    try:
        yield from (int(line) for line in read(path, "cgroup.procs").split() if line != "0")
    except OSError as error:
        # Removed; removed while we read; threaded: its processes are listed by the cgroup above.
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return
    if recursive:
        for child in children(path):
            yield from _pids(child, recursive)


def populated(path: str) -> bool:
    """Say whether a process lives in the cgroup or below it; False if it is gone."""
    try:
        return "populated 1" in read(path, "cgroup.events")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return False
        raise


def freeze(path: str, timeout: float) -> bool:
    """Stop every process in the cgroup and below it; say whether all stand still.

    Args:
        path: the cgroup.
        timeout: seconds to wait at most for those that are in a system call.

    Raises:
        OSError: with errno and the path; ENOENT before Linux 5.2.
    """
    write(path, "cgroup.freeze", "1")
    return _wait_event(path, "frozen 0", timeout)


def is_frozen(path: str) -> bool:
    """Say whether the cgroup was told to stand still by itself; False if it is gone."""
    try:
        return read(path, "cgroup.freeze").strip() == "1"
    except FileNotFoundError:
        return False


def thaw(path: str) -> None:
    """Let the processes of a frozen cgroup go on; nothing if it is gone."""
    try:
        write(path, "cgroup.freeze", "0")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def wait_empty(path: str, timeout: float) -> bool:
    """Wait until no process lives in the cgroup or below it.

    Args:
        path: the cgroup.
        timeout: seconds to wait at most.

    Returns:
        Whether it is empty, or gone.
    """
    if not populated(path):
        return True
    return _wait_event(path, "populated 1", timeout)


def _wait_event(path: str, line: str, timeout: float) -> bool:
    """Wait until this line has gone from cgroup.events, or the cgroup; say whether it has."""
    import select

    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + timeout
    poller = select.poll()
    poller.register(fd, select.POLLPRI)  # set when the file has changed since it was read by fd
    try:
        while line.encode() in os.pread(fd, 256, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Not to the deadline: the kernel sends at most one sign in 10 ms, and one that is
            # due later is lost where the cgroup is removed before.
            poller.poll(min(left, _LOOK_AGAIN) * 1000)
    except OSError as error:
        if error.errno != errno.ENODEV:  # removed
            raise
    finally:
        os.close(fd)
    return True


def kill(path: str) -> None:
    """Send SIGKILL to every process in the cgroup and below it; nothing if it is gone.

    Where cgroup.kill is missing (before Linux 5.14) the processes are killed one by one, so
    that one which forks at that moment survives: call again until the cgroup is empty.
    """
    try:
        write(path, "cgroup.kill", "1")
    except FileNotFoundError:
        for pid in pids(path, recursive=True):
            _kill_process(pid)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def kill_others(path: str, pid: int) -> None:
    """Send SIGKILL to every process in the cgroup and below it except this one."""
    if not contains(path, pid):
        kill(path)
        return
    for child in children(path):
        kill_others(child, pid)
    for other in pids(path):
        if other != pid:
            _kill_process(other)


def _kill_process(pid: int) -> None:
    try:
        os.kill(pid, _SIGKILL)
    except ProcessLookupError:
        pass


def remove(path: str, timeout: float = 1.0) -> None:
    """Remove an empty cgroup with those below it; nothing if it is gone.

    Args:
        path: the cgroup.
        timeout: seconds for which a cgroup that is busy is tried again: a process that is
            just dying still counts.

    Raises:
        OSError: EBUSY, a process lives there.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            _remove_tree(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _remove_tree(path: str) -> None:
    try:
        _remove_one(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        for child in children(path):
            _remove_tree(child)
        _remove_one(path)


def _remove_one(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def delegate(path: str, uid: int, gid: int) -> None:
    """Let a user make cgroups below this one and move processes there; cgroups(7), "Delegation".

    Raises:
        OSError: with the path.
    """
    try:
        with open("/sys/kernel/cgroup/delegate", encoding="utf-8") as file:
            names = file.read().split()
    except FileNotFoundError:  # Linux 4.15
        names = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"]
    os.chown(path, uid, gid)
    for name in names:
        try:
            os.chown(f"{path}/{name}", uid, gid)
        except FileNotFoundError:  # of a controller that is not enabled here
            pass


def controllers(path: str) -> tuple[str, ...]:
    """Return the controllers that the cgroup may use; cgroup.controllers."""
    return tuple(read(path, "cgroup.controllers").split())


def enable(path: str, names: Iterable[str]) -> None:
    """Hand controllers on to the cgroups below; cgroup.subtree_control. Those that are stay.

    Raises:
        OSError: ENOENT, the cgroup has no such controller; EBUSY, processes live in it.
    """
    missing = set(names).difference(read(path, "cgroup.subtree_control").split())
    if missing:
        write(path, "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))


def enable_all(path: str) -> tuple[str, ...]:
    """Hand every controller on to the cgroups below, as far as that can be done.

    Returns:
        Those that are handed on: not one that would need a cgroup without processes.
    """
    for name in controllers(path):
        try:
            enable(path, (name,))
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
                raise
    return tuple(read(path, "cgroup.subtree_control").split())
