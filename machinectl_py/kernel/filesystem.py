"""New file systems as detached mounts: fsopen(2), fsconfig(2), fsmount(2).

Such a mount is in no mount namespace until move_mount(2) attaches it, so one process can make
what another mounts; which user namespace owns the file system is decided where it is made.
"""

from __future__ import annotations

import errno
import os
import struct

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc, raise_errno
from machinectl_py.kernel.namespaces import clone3, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING = 0, 1  # <linux/mount.h>
_INT = struct.Struct("i")
_DENIED = -1


def make_filesystems_in(
    pidfd: int,
    namespaces: int,
    fstypes: tuple[str, ...],
    attributes: int,
    *,
    pid: int,
    optional: str = "",
) -> tuple[int, ...]:
    """Return detached mounts of new file systems that show the namespaces of a process.

    proc is that of its maker's PID namespace, sysfs that of the network namespace, so a process
    in these makes them, which shares our descriptors. It stays in our user namespace: in another,
    mounts of both are allowed only where a whole one is mounted already.

    Args:
        pidfd: of a process whose PID namespace it is.
        namespaces: CLONE_NEW flags of the process's other namespaces to be in.
        fstypes: as in /proc/filesystems.
        attributes: MOUNT_ATTR_ flags of the mounts.
        pid: of the short-lived process, in its PID namespace.
        optional: the type of which -1 is returned if it is denied.

    Raises:
        OSError: with errno, the call and the type.
    """

    def make(fstype: str) -> int:
        try:
            return make_filesystem(fstype, (("source", fstype),), attributes)
        except PermissionError:
            if fstype != optional:
                raise
            return _DENIED

    told, tell = os.pipe2(os.O_CLOEXEC)
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(pidfd, const.CLONE_NEWPID)  # for children
        child, child_pidfd = clone3(const.CLONE_FILES, number=pid)
        if child == 0:
            _make_for_parent(pidfd, namespaces, fstypes, make, tell)
        setns(ours, const.CLONE_NEWPID)
        os.waitpid(child, 0)
        os.close(child_pidfd)
        numbers = [number for (number,) in _INT.iter_unpack(os.read(told, 4096))]
    finally:
        for fd in (told, tell, ours):
            os.close(fd)
    made = [number for number in numbers if number >= _DENIED]
    if len(made) < len(fstypes):
        for fd in filter(lambda number: number >= 0, made):
            os.close(fd)
        told_error = _DENIED - numbers[-1] if len(numbers) > len(made) else errno.ECHILD  # killed
        raise_errno(told_error, "fsmount", fstypes[len(made)])
    return tuple(made)


def _make_for_parent(
    pidfd: int,
    namespaces: int,
    fstypes: tuple[str, ...],
    make: Callable[[str], int],
    tell: int,
) -> NoReturn:
    """Tell the descriptors of the file systems, or `_DENIED`; an errno below that is the last."""
    try:
        if namespaces:
            setns(pidfd, namespaces)
        for fstype in fstypes:
            os.write(tell, _INT.pack(make(fstype)))
    except OSError as error:
        os.write(tell, _INT.pack(_DENIED - (error.errno or errno.EIO)))
    finally:
        os._exit(0)


def make_filesystem(
    fstype: str, options: tuple[tuple[str, str], ...] = (), attributes: int = 0
) -> int:
    """Return a detached mount of a new file system, as a descriptor, close-on-exec.

    Args:
        fstype: as in /proc/filesystems.
        options: of the file system, as ("mode", "0755"), or ("ro", "") for a flag.
        attributes: MOUNT_ATTR_ flags of the mount.

    Raises:
        OSError: with errno, the call and the type or option.
    """
    context = check(
        libc.syscall(const.NR_fsopen, fstype.encode(), const.FSOPEN_CLOEXEC), "fsopen", fstype
    )
    try:
        for key, value in options:
            name, text = key.encode(), os.fsencode(value) or None
            how = _FSCONFIG_SET_STRING if text else _FSCONFIG_SET_FLAG
            result = libc.syscall(const.NR_fsconfig, context, how, name, text, 0)
            check(result, "fsconfig", f"{key}={value}")
        result = libc.syscall(const.NR_fsconfig, context, const.FSCONFIG_CMD_CREATE, None, None, 0)
        check(result, "fsconfig", fstype)
        result = libc.syscall(const.NR_fsmount, context, const.FSMOUNT_CLOEXEC, attributes)
        return check(result, "fsmount", fstype)
    finally:
        os.close(context)


def no_recovery(fstype: str) -> tuple[tuple[str, str], ...]:
    """Return the options with which a read-only mount writes nothing, not even from a journal."""
    if fstype in ("ext4", "xfs"):
        return (("norecovery", ""),)
    return (("rescue", "nologreplay"),) if fstype == "btrfs" else ()


def can_discard(fstype: str) -> bool:
    """Say whether it can tell the device below of blocks that are free; mount(8), discard."""
    return fstype in ("btrfs", "ext4", "f2fs", "vfat", "xfs")
