"""mount(2), umount2(2) and pivot_root(2), with Python's types."""

from __future__ import annotations

import ctypes
import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.const import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_UNBINDABLE,
)
from machinectl_py.kernel.libc import check, libc

_FLAG_NAMES = (
    (MS_BIND, "bind"),
    (MS_REMOUNT, "remount"),
    (MS_REC, "rec"),
    (MS_RDONLY, "ro"),
    (MS_NOSUID, "nosuid"),
    (MS_NODEV, "nodev"),
    (MS_NOEXEC, "noexec"),
    (MS_NOSYMFOLLOW, "nosymfollow"),
    (MS_STRICTATIME, "strictatime"),
    (MS_RELATIME, "relatime"),
    (MS_SHARED, "shared"),
    (MS_SLAVE, "slave"),
    (MS_PRIVATE, "private"),
    (MS_UNBINDABLE, "unbindable"),
)


class _MountAttr(ctypes.Structure):
    """`struct mount_attr` of <linux/mount.h>."""

    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    )


def flag_names(flags: int) -> tuple[str, ...]:
    """Return the options of mount(8) for these MS_ flags."""
    return tuple(name for flag, name in _FLAG_NAMES if flags & flag)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source` on `target`; see mount(2).

    Raises:
        OSError: with errno, "mount" and the target.
    """
    result = libc.mount(
        os.fsencode(source) if source else None,
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        data.encode() if data else None,
    )
    check(result, "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount what is on top at `target`; see umount(2).

    Raises:
        OSError: with errno, "umount2" and the target.
    """
    check(libc.umount2(os.fsencode(target), flags), "umount2", target)


def unmount_all(path: str) -> None:
    """Detach all that is mounted at `path`, one on the other, following no link; umount(2).

    Raises:
        OSError: with errno, "umount2" and the path.
    """
    while True:
        try:
            umount2(path, const.MNT_DETACH | const.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:  # nothing is mounted there
                raise
            return


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root mount and move the old one to `put_old`; see pivot_root(2).

    Raises:
        OSError: with errno, "pivot_root" and both paths.
    """
    check(libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)


def open_tree(path: str, *, recursive: bool = True) -> int:
    """Return a detached copy of the mount at `path`, as a descriptor; open_tree(2).

    It belongs to no mount namespace, so it outlives a pivot_root(2).

    Raises:
        OSError: with errno, "open_tree" and the path.
    """
    flags = const.OPEN_TREE_CLONE | os.O_CLOEXEC | (const.AT_RECURSIVE if recursive else 0)
    result = libc.syscall(const.NR_open_tree, const.AT_FDCWD, os.fsencode(path), flags)
    return check(result, "open_tree", path)


def open_slave_tree(path: str, *, recursive: bool = True) -> int:
    """Return a detached copy that sees what is mounted in the original, but not the reverse.

    Raises:
        OSError: as `open_tree`.
    """
    tree = open_tree(path, recursive=recursive)
    set_attributes(tree, propagation=MS_SLAVE)
    return tree


def move_mount(tree: int, target: int) -> None:
    """Attach a detached mount at what the descriptor `target` refers to; move_mount(2).

    Raises:
        OSError: with errno and "move_mount".
    """
    flags = const.MOVE_MOUNT_F_EMPTY_PATH | const.MOVE_MOUNT_T_EMPTY_PATH
    check(libc.syscall(const.NR_move_mount, tree, b"", target, b"", flags), "move_mount")


def set_attributes(
    path: str | int,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    *,
    recursive: bool = True,
    user_namespace: int = -1,
) -> None:
    """Change a mount and, if recursive, all mounts below it at once; mount_setattr(2).

    Args:
        path: where the mount is, or the descriptor of a detached one.
        set_: MOUNT_ATTR_ flags to set.
        clear: MOUNT_ATTR_ flags to clear.
        propagation: MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 leaves it.
        recursive: AT_RECURSIVE.
        user_namespace: descriptor of the one whose maps are applied, with MOUNT_ATTR_IDMAP.

    Raises:
        OSError: with errno, "mount_setattr" and the path.
    """
    attributes = _MountAttr(
        attr_set=set_, attr_clr=clear, propagation=propagation, userns_fd=max(user_namespace, 0)
    )
    detached = isinstance(path, int)
    result = libc.syscall(
        const.NR_mount_setattr,
        path if isinstance(path, int) else const.AT_FDCWD,
        b"" if isinstance(path, int) else os.fsencode(path),
        (const.AT_RECURSIVE if recursive else 0) | (const.AT_EMPTY_PATH if detached else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    check(result, "mount_setattr", str(path))
