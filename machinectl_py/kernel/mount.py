"""mount(2), umount2(2) and pivot_root(2), with Python's types."""

from __future__ import annotations

import os

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


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root mount and move the old one to `put_old`; see pivot_root(2).

    Raises:
        OSError: with errno, "pivot_root" and both paths.
    """
    check(libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)
