"""Removes what a machine wrote: trees of any depth, with links and flags that mean harm."""

from __future__ import annotations

import errno
import os
import stat
import struct

from machinectl_py.kernel.paths import open_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class _Removal(Protocol):
        def __call__(self, path: str, *, dir_fd: int) -> None: ...


_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # <linux/fs.h>, ioctl_iflags(2)
_FS_IMMUTABLE_FL, _FS_APPEND_FL = 0x10, 0x20
_FLAGS = struct.Struct("l")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str, parent: int | None = None) -> None:
    """Remove a file, or a directory with all that is in it; nothing if it is gone.

    No symbolic link is followed and no mount point entered; subvolumes of btrfs go. The way
    back from a directory is its "..", so that a tree may be deeper than descriptors or the stack
    would reach; where that leads elsewhere, because somebody moves directories, it stops.

    Args:
        path: what to remove.
        parent: descriptor of the directory that holds it; `path` is a name there then.

    Raises:
        OSError: EBUSY, something is mounted in it, or moved; any other of unlinkat(2).
    """
    directory, _, name = path.rpartition("/")
    try:
        current = os.dup(parent) if parent is not None else os.open(directory or "/", _DIRECTORY)
    except FileNotFoundError:
        return
    pending, entered = [[name]], list[tuple[str, tuple[int, int]]]()
    try:
        while pending[-1] or entered:
            if not pending[-1]:
                pending.pop()
                name, origin = entered.pop()
                current = _step(current, "..")
                if _identity(current) != origin:
                    raise OSError(errno.EBUSY, "a directory to be removed was moved", name)
                _remove(current, name, os.rmdir)
            elif not _remove_file(current, name := pending[-1].pop()):
                origin = _identity(current)
                if not entered:
                    current = _step(current, name)
                elif (below := _enter(current, name)) is None:
                    continue
                else:
                    os.close(current)
                    current = below
                entered.append((name, origin))
                pending.append(os.listdir(current))
    finally:
        os.close(current)


def _identity(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _enter(current: int, name: str) -> int | None:
    """Open a directory in the tree; None if it was a subvolume of btrfs, which is gone at once.

    Raises:
        OSError: EBUSY, something is mounted there, be it of the same file system.
    """
    try:
        below = open_below(current, name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise OSError(errno.EBUSY, "a mount point in a tree to be removed", name) from error
    if _identity(below)[0] == _identity(current)[0]:
        return below
    os.close(below)
    from machinectl_py.kernel import btrfs

    btrfs.delete_in(current, name)
    return None


def _step(current: int, name: str) -> int:
    """Go on to another directory: `current` stays open only if that fails."""
    following = os.open(name, _DIRECTORY, dir_fd=current)
    os.close(current)
    return following


def _remove_file(directory: int, name: str) -> bool:
    """Remove what is no directory; say whether it was none."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        return False
    _remove(directory, name, os.unlink)
    return True


def _remove(directory: int, name: str, how: _Removal) -> None:
    try:
        how(name, dir_fd=directory)
    except PermissionError:
        _clear_flags(directory)
        _clear_flags(directory, name)
        how(name, dir_fd=directory)


def _clear_flags(directory: int, name: str = ".") -> None:
    """Let a file or directory be removed that chattr(1) has made immutable."""
    import fcntl

    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        return
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        flags = _FLAGS.unpack(fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(_FLAGS.size)))[0]
        flags &= ~(_FS_IMMUTABLE_FL | _FS_APPEND_FL)
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, _FLAGS.pack(flags))
    except OSError:  # a file system without flags; the removal tells what is wrong
        pass
    finally:
        os.close(fd)
