"""Locked mounts: what root of a user namespace can neither loosen nor take off.

The kernel locks mounts that come from a mount namespace of another user namespace: their flags,
and each to its place; mount_namespaces(7), "Restrictions on mount namespaces". What root of a user
namespace has mounted itself is not locked.
"""

from __future__ import annotations

import errno
import os
import struct

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import raise_errno
from machinectl_py.kernel.namespaces import clone3, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INT = struct.Struct("i")


def copy_locked(pidfd: int) -> int:
    """Return a mount namespace with the mounts of a process's own, all locked.

    It belongs to the process's user namespace, whose ancestor ours must be, so the process can
    join it. A short-lived child makes it, which shares our descriptors: first a copy that is ours,
    then one of that which is theirs.

    Args:
        pidfd: of a process in another user namespace, which owns its mount namespace.

    Returns:
        The descriptor of the namespace, close-on-exec.

    Raises:
        OSError: with errno and the call.
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    # By this, /proc is reached from another root and another PID namespace.
    here = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        child, child_pidfd = clone3(const.CLONE_FILES)
        if child == 0:
            _copy_for_parent(pidfd, here, tell)
        os.close(child_pidfd)
        os.waitpid(child, 0)
        os.set_blocking(told, False)
        try:
            (number,) = _INT.unpack(os.read(told, _INT.size))
        except BlockingIOError:  # it was killed
            number = -errno.ECHILD
    finally:
        for fd in (told, tell, here):
            os.close(fd)
    if number < 0:
        raise_errno(-number, "unshare", "CLONE_NEWNS")
    return int(number)


def _copy_for_parent(pidfd: int, proc: int, tell: int) -> NoReturn:
    """Tell the descriptor of the new namespace, or a negative errno."""
    try:
        setns(pidfd, const.CLONE_NEWNS)
        unshare(const.CLONE_NEWNS)
        setns(pidfd, const.CLONE_NEWUSER)
        unshare(const.CLONE_NEWNS)
        made = os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        os.write(tell, _INT.pack(made))
    except OSError as error:
        os.write(tell, _INT.pack(-(error.errno or errno.EIO)))
    finally:
        os._exit(0)
