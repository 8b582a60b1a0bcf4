"""Which file system a path is on; statfs(2), of which Python has only the POSIX half."""

from __future__ import annotations

import os

BTRFS = 0x9123683E
# What overlayfs takes for an upper layer, ext4, xfs, tmpfs, f2fs, bcachefs and zfs besides:
# a file system that tells the types of directory entries, and is no overlay or network's.
UPPER_LAYERS = frozenset(
    {BTRFS, 0xEF53, 0x58465342, 0x01021994, 0xF2F52010, 0xCA451A4E, 0x2FC12FC1}
)
_SUBVOLUME_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID, of the root of each subvolume
_SIZE = 256  # more than any architecture's `struct statfs`, which begins with f_type


def filesystem_magic(path: str) -> int:
    """Return the magic number of the file system; <linux/magic.h>.

    Raises:
        OSError: with errno, "statfs" and the path.
    """
    import ctypes  # late: most that is asked here is whether something is a subvolume

    from machinectl_py.kernel.libc import check, libc

    buffer = (ctypes.c_ulong * (_SIZE // ctypes.sizeof(ctypes.c_ulong)))()
    check(libc.statfs(os.fsencode(path), ctypes.byref(buffer)), "statfs", path)
    return buffer[0] & 0xFFFFFFFF


def is_subvolume(path: str) -> bool:
    """Say whether a directory is the root of a subvolume of btrfs.

    Raises:
        OSError: with errno and the path.
    """
    return os.stat(path).st_ino == _SUBVOLUME_INODE and filesystem_magic(path) == BTRFS
