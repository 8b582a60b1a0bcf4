"""Time namespaces of callers who may not set clocks where they are; time_namespaces(7).

Offsets count from the initial namespace's clocks, in nanoseconds, as `namespaces.time_offsets`.
"""

from __future__ import annotations

import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import raise_errno
from machinectl_py.kernel.namespaces import clone3, set_time_offsets, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def make_time_namespace(monotonic: int, boottime: int) -> int:
    """Make a time namespace by a process in a user namespace of its own, where that may set clocks.

    Whoever is root of the caller's user namespace may join it.

    Returns:
        A descriptor of the namespace, close-on-exec.

    Raises:
        OSError: with errno; EPERM or ENOSPC where no user namespace can be made.
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    wait, go = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone3(const.CLONE_NEWUSER)
    if pid == 0:
        os.close(go)
        _make(monotonic, boottime, tell, wait)
    os.close(tell)
    try:
        answer = os.read(told, 16)
        if answer != b"0":
            raise_errno(int(answer or errno.ECHILD), "unshare", "CLONE_NEWTIME")
        return os.open(f"/proc/{pid}/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (go, wait, told, pidfd):
            os.close(fd)
        os.waitpid(pid, 0)


def _make(monotonic: int, boottime: int, tell: int, wait: int) -> NoReturn:
    """Tell errno or 0, and live until the namespace was opened."""
    try:
        unshare(const.CLONE_NEWTIME)
        set_time_offsets(monotonic, boottime)
        os.write(tell, b"0")
        os.read(wait, 1)
    except OSError as error:
        os.write(tell, b"%d" % (error.errno or errno.EIO))
    finally:
        os._exit(0)


def enter_new_time(monotonic: int, boottime: int) -> None:
    """Be in a new time namespace; the caller must have one thread.

    Raises:
        OSError: EPERM without CAP_SYS_TIME and CAP_SYS_ADMIN in our user namespace.
    """
    unshare(const.CLONE_NEWTIME)
    set_time_offsets(monotonic, boottime)
    enter_time("/proc/self/ns/time_for_children")


def enter_time(path: str) -> None:
    """Be in the time namespace of a file; the caller must have one thread.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN in its user namespace and ours.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, const.CLONE_NEWTIME)
    finally:
        os.close(fd)
