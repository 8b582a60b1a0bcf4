"""Limits of what a tree may take on the disk: project quotas, and quota groups of btrfs.

See quotactl(2), ext4(5), xfs_quota(8), "DIRECTORY TREE QUOTA", and btrfs-quota(8).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from machinectl_py.kernel.libc import check, libc
from machinectl_py.kernel.writeback import sync_filesystem

_NR_QUOTACTL_FD = 443  # Linux 5.14
_GET, _SET = 0x800007, 0x800008  # Q_GETQUOTA, Q_SETQUOTA of <linux/quota.h>
_PROJECT = 2  # PRJQUOTA
_BLOCK = 1024  # QIF_DQBLKSIZE
_QIF_BLIMITS = 1
_DQBLK = struct.Struct("8QI4x")
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("5I8x")
_PROJINHERIT = 0x200
_QUOTA_CTL, _QUOTA_ENABLE = 0xC0109428, 1
_QGROUP_LIMIT = 0x8030942B
_QGROUP_ARGUMENT = struct.Struct("6Q")
_MAX_REFERENCED = 1  # BTRFS_QGROUP_LIMIT_MAX_RFER
_FS_INFO, _FS_INFO_SIZE = 0x8400941F, 1024
_INO_LOOKUP, _INO_LOOKUP_SIZE = 0xD0009412, 4096
_NO_LIMIT = (1 << 64) - 1
# What the kernel answers where there are no quotas.
NO_QUOTA = (errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.ESRCH, errno.EINVAL, errno.ENOTCONN)


def set_project(path: str, project: int) -> None:
    """Make a tree, and all that will be made in it, a project of a file system.

    Raises:
        OSError: with errno and the path; one of NO_QUOTA where there are no projects.
    """
    pending = [path]
    while pending:
        place = pending.pop()
        mode = os.lstat(place).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            continue  # nothing that takes room
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags, extent, extents, _, cow = _FSXATTR.unpack(
                fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size))
            )
            flags |= _PROJINHERIT if stat.S_ISDIR(mode) else 0
            fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(flags, extent, extents, project, cow))
            if stat.S_ISDIR(mode):
                pending += [f"{place}/{name}" for name in os.listdir(fd)]
        except OSError as error:
            raise OSError(error.errno, f"ioctl: {error.strerror}", place) from error
        finally:
            os.close(fd)


def project_of(path: str) -> int:
    """Return the project of a directory; 0 for none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found: int = _FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size)))[3]
    except OSError:
        return 0
    finally:
        os.close(fd)
    return found


def set_project_limit(path: str, project: int, limit: int) -> None:
    """Limit what a project takes, in bytes; 0 is no limit.

    Raises:
        OSError: with errno and the path; one of NO_QUOTA where they are not enabled.
    """
    blocks = -(-limit // _BLOCK)
    _quotactl(path, _SET, project, _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS))


def project_limit(path: str, project: int) -> int:
    """Return the limit of a project in bytes; 0 if there is none."""
    try:
        return int(_DQBLK.unpack(_quotactl(path, _GET, project, bytes(_DQBLK.size)))[0]) * _BLOCK
    except OSError:
        return 0


def _quotactl(path: str, command: int, project: int, block: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(block, len(block))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = libc.syscall(_NR_QUOTACTL_FD, fd, command << 8 | _PROJECT, project, buffer)
        check(result, "quotactl_fd", path)
    finally:
        os.close(fd)
    return buffer.raw


def set_subvolume_limit(path: str, limit: int) -> None:
    """Limit what a subvolume of btrfs refers to, in bytes; 0 is no limit. Enables its quotas.

    Raises:
        OSError: with errno and the path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            _limit_subvolume(fd, limit)
        except OSError as error:
            if error.errno != errno.EDQUOT:
                raise
            # Seen once, of a limit that was reached; a commit gives back what writes reserved.
            sync_filesystem(fd, path)
            _limit_subvolume(fd, limit)
    except OSError as error:
        raise OSError(error.errno, f"ioctl: {error.strerror}", path) from error
    finally:
        os.close(fd)


def _limit_subvolume(fd: int, limit: int) -> None:
    fcntl.ioctl(fd, _QUOTA_CTL, bytearray(struct.pack("QQ", _QUOTA_ENABLE, 0)))
    argument = (0, _MAX_REFERENCED, limit or _NO_LIMIT, 0, 0, 0)
    fcntl.ioctl(fd, _QGROUP_LIMIT, _QGROUP_ARGUMENT.pack(*argument))


def subvolume_limit(path: str) -> int:
    """Return what a subvolume may refer to, in bytes; 0 if there is no limit."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info = bytearray(_FS_INFO_SIZE)
        fcntl.ioctl(fd, _FS_INFO, info)
        lookup = bytearray(_INO_LOOKUP_SIZE)
        struct.pack_into("QQ", lookup, 0, 0, 256)  # BTRFS_FIRST_FREE_OBJECTID: its root directory
        fcntl.ioctl(fd, _INO_LOOKUP, lookup)
    except OSError:
        return 0
    finally:
        os.close(fd)
    (tree,) = struct.unpack_from("Q", lookup)
    digits = info[16:32].hex()
    uuid = "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    try:
        with open(
            f"/sys/fs/btrfs/{uuid}/qgroups/0_{tree}/max_referenced", encoding="ascii"
        ) as file:
            found = int(file.read())
    except (OSError, ValueError):
        return 0
    return 0 if found == _NO_LIMIT else found
