"""Namespaces: unshare(2), setns(2), clone3(2), and what a namespace is known by."""

from __future__ import annotations

import ctypes
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc

# The names in /proc/PID/ns, in the order of namespaces(7), with the flag of each.
NAMESPACE_FLAGS = {
    "mnt": const.CLONE_NEWNS,
    "pid": const.CLONE_NEWPID,
    "net": const.CLONE_NEWNET,
    "ipc": const.CLONE_NEWIPC,
    "uts": const.CLONE_NEWUTS,
    "user": const.CLONE_NEWUSER,
    "cgroup": const.CLONE_NEWCGROUP,
    "time": const.CLONE_NEWTIME,
}


class _CloneArgs(ctypes.Structure):
    """`struct clone_args` of <linux/sched.h>, in its version of Linux 5.7."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in [
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        ]
    )


def flag_text(flags: int) -> str:
    """Return the CLONE_ names of `flags`, as in "CLONE_NEWNS|CLONE_NEWUTS"."""
    names = (
        f"CLONE_NEW{'NS' if name == 'mnt' else name.upper()}"
        for name, flag in NAMESPACE_FLAGS.items()
        if flags & flag
    )
    return "|".join(names)


def unshare(flags: int) -> None:
    """Leave these namespaces for new ones; see unshare(2).

    CLONE_NEWPID and CLONE_NEWTIME take effect for children only.

    Raises:
        OSError: with errno and "unshare".
    """
    check(libc.unshare(flags), "unshare", flag_text(flags))


def setns(fd: int, flags: int) -> None:
    """Join the namespace of `fd`, or with a pidfd those in `flags`; see setns(2).

    Raises:
        OSError: with errno and "setns".
    """
    check(libc.setns(fd, flags), "setns", flag_text(flags))


def clone3(flags: int, cgroup: int = -1, number: int = 0) -> tuple[int, int]:
    """Fork into new namespaces and, with the directory `cgroup`, into that cgroup.

    Being born in a cgroup saves the migration, which waits for a grace period of the kernel
    (10 ms); see clone3(2), CLONE_INTO_CGROUP. The caller must have one thread.

    Args:
        flags: CLONE_NEW flags; CLONE_NEWTIME is not possible here, see time_namespaces(7).
        cgroup: descriptor of a cgroup2 directory, or -1 for the caller's own cgroup.
        number: the child's PID in its own PID namespace; 0 takes the next.

    Returns:
        In the parent the child's PID and a pidfd of it; in the child (0, -1).

    Raises:
        OSError: with errno and "clone3".
    """
    pidfd = ctypes.c_int(-1)
    chosen = (ctypes.c_int * 1)(number)
    arguments = _CloneArgs(
        flags=flags | const.CLONE_PIDFD | (const.CLONE_INTO_CGROUP if cgroup >= 0 else 0),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=const.SIGCHLD,
        set_tid=ctypes.addressof(chosen) if number else 0,
        set_tid_size=1 if number else 0,
        cgroup=max(cgroup, 0),
    )
    size = ctypes.sizeof(arguments)
    pid = check(
        libc.syscall(const.NR_clone3, ctypes.byref(arguments), ctypes.c_size_t(size)), "clone3"
    )
    return pid, pidfd.value if pid else -1


def namespace_id(pid: int | str, name: str) -> int:
    """Return the inode of a process's namespace, as in /proc/PID/ns; see namespaces(7).

    Raises:
        OSError: no such process, or not allowed to look.
    """
    return os.stat(f"/proc/{pid}/ns/{name}").st_ino


def is_network_namespace(path: str) -> bool:
    """Say whether a file is a network namespace; ioctl_ns(2), NS_GET_NSTYPE.

    Raises:
        OSError: it cannot be opened.
    """
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(fd, const.NS_GET_NSTYPE) == const.CLONE_NEWNET
    except OSError:  # ENOTTY: of another file system
        return False
    finally:
        os.close(fd)


def owns_network() -> bool:
    """Say whether our network namespace is our user namespace's or one's below: NS_GET_USERNS.

    In that of one above we have no capability, whichever we hold.
    """
    import fcntl

    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(fd, const.NS_GET_USERNS))
    except OSError:  # EPERM
        return False
    finally:
        os.close(fd)
    return True


class InNetwork:
    """Be in the network namespace of a file for a while; a socket made there stays there."""

    def __init__(self, path: str) -> None:
        """Take the path of the namespace, such as /proc/PID/ns/net."""
        self._path = path
        self._ours = -1

    def __enter__(self) -> None:
        """Join it.

        Raises:
            OSError: it cannot be opened, or not be joined.
        """
        theirs = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._ours = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            setns(theirs, const.CLONE_NEWNET)
        finally:
            os.close(theirs)

    def __exit__(self, *_: object) -> None:
        """Return to ours."""
        setns(self._ours, const.CLONE_NEWNET)
        os.close(self._ours)


def rejoin(mounts: int, root: int, directory: int) -> None:
    """Return to a mount namespace that we have left, and to our places in it.

    Args:
        mounts: descriptor of the namespace; to join it sets both of these to its root.
        root: descriptor of our root directory there.
        directory: descriptor of our working directory there.

    Raises:
        OSError: with errno and the call.
    """
    setns(mounts, const.CLONE_NEWNS)
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(directory)


_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO of <linux/proc_ns.h>


def in_user_namespace() -> bool:
    """Say whether we are in a user namespace other than the initial one."""
    try:
        return namespace_id("self", "user") != _INITIAL_USER_NAMESPACE
    except OSError:  # a kernel without them
        return False


def sethostname(name: str) -> None:
    """Set the hostname of the UTS namespace; see sethostname(2).

    Raises:
        OSError: with errno and "sethostname".
    """
    text = os.fsencode(name)
    check(libc.sethostname(text, len(text)), "sethostname", name)


def set_time_offsets(monotonic: int, boottime: int) -> None:
    """Set the clocks of the time namespace that the caller's children will enter.

    To be called between `unshare(CLONE_NEWTIME)` and the first child; time_namespaces(7).

    Args:
        monotonic: what is added to CLOCK_MONOTONIC, in nanoseconds.
        boottime: what is added to CLOCK_BOOTTIME, in nanoseconds.

    Raises:
        OSError: ERANGE if a clock would stand below zero.
    """
    lines = (
        f"{clock} {offset // 1_000_000_000} {offset % 1_000_000_000}\n"
        for clock, offset in (("monotonic", monotonic), ("boottime", boottime))
    )
    write_proc("/proc/self/timens_offsets", "".join(lines))


def time_offsets() -> dict[str, int]:
    """Return the offsets of the namespace for children, in nanoseconds, by clock's name.

    They count from the initial namespace's clocks, whatever namespace we are in ourselves;
    a new namespace begins with those of its maker; time_namespaces(7).
    """
    found = {}
    with open("/proc/self/timens_offsets", encoding="utf-8") as file:
        for line in file:
            clock, seconds, nanoseconds = line.split()
            found[clock] = int(seconds) * 1_000_000_000 + int(nanoseconds)
    return found


def write_proc(path: str, text: str) -> None:
    """Write `text` to a kernel file in one write(2).

    Raises:
        OSError: with the path.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(fd)
