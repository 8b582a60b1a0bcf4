"""Snapshots of subvolumes of btrfs; ioctls of <linux/btrfs.h>, btrfs-subvolume(8)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from machinectl_py.kernel.paths import open_in_root
from machinectl_py.kernel.statfs import is_subvolume

_IOW, _IOWR = 0x50009400, 0xD0009400  # of structures of 4096 bytes, magic 0x94
_SNAP_DESTROY, _SNAP_CREATE_V2, _SUBVOL_CREATE_V2 = _IOW | 15, _IOW | 23, _IOW | 24
_GET_SUBVOL_ROOTREF, _INO_LOOKUP_USER = _IOWR | 61, _IOWR | 62
_SUBVOL_GETFLAGS, _SUBVOL_SETFLAGS = 0x80089419, 0x4008941A
_SUBVOL_RDONLY = 1 << 1
_FLAGS = struct.Struct("Q")
_VOL_ARGS = struct.Struct("q4088s")
_VOL_ARGS_V2 = struct.Struct("qQQ32x4040s")
_ROOTREFS = struct.Struct("Q" + "QQ" * 255 + "B7x")
_LOOKUP_USER = struct.Struct("QQ256s3824s")
# What the kernel answers where a snapshot cannot be: another file system, or no btrfs.
NO_SNAPSHOT = (errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: str) -> None:
    """Make an empty subvolume.

    Raises:
        OSError: with errno and the path; EEXIST, something is there.
    """
    directory, _, name = path.rpartition("/")
    parent = os.open(directory or "/", _DIRECTORY)
    try:
        _ioctl(parent, _SUBVOL_CREATE_V2, _VOL_ARGS_V2.pack(0, 0, 0, os.fsencode(name)), path)
    finally:
        os.close(parent)


def snapshot(source: str, target: str) -> None:
    """Take a writable snapshot of a subvolume, and of those below it, in constant time each.

    Raises:
        OSError: with errno and the path; EEXIST, the target is there.
    """
    directory, _, name = target.rpartition("/")
    from_, parent = os.open(source, _DIRECTORY), os.open(directory or "/", _DIRECTORY)
    try:
        _snapshot(from_, parent, name, target)
    finally:
        os.close(from_)
        os.close(parent)


def _snapshot(source: int, parent: int, name: str, path: str) -> None:
    children = _children(source)  # before: the snapshot may become one of them
    argument = _VOL_ARGS_V2.pack(source, 0, 0, os.fsencode(name))
    _ioctl(parent, _SNAP_CREATE_V2, argument, path)
    target = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        for below, entry in children:
            from_ = open_in_root(source, f"{below}{entry}", _DIRECTORY)
            into = open_in_root(target, below or ".", _DIRECTORY)
            try:
                os.rmdir(entry, dir_fd=into)  # an empty directory stands for it there
                _snapshot(from_, into, entry, f"{path}/{below}{entry}")
            finally:
                os.close(from_)
                os.close(into)
    finally:
        os.close(target)


def delete(path: str) -> None:
    """Delete a subvolume with those below it; nothing if it is gone.

    Raises:
        OSError: with errno and the path; EINVAL, it is no subvolume.
    """
    directory, _, name = path.rpartition("/")
    try:
        if not is_subvolume(path):
            raise OSError(errno.EINVAL, "no subvolume", path)
        parent = os.open(directory or "/", _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        delete_in(parent, name, path)
    finally:
        os.close(parent)


def delete_in(parent: int, name: str, path: str = "") -> None:
    """Delete a subvolume, with those below it, by its name in a directory that is open.

    Raises:
        OSError: with errno and the path, or the name.
    """
    path = path or name
    subvolume = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        for below, entry in _children(subvolume):
            inner = open_in_root(subvolume, below or ".", _DIRECTORY)
            try:
                delete_in(inner, entry, f"{path}/{below}{entry}")
            finally:
                os.close(inner)
    finally:
        os.close(subvolume)
    _ioctl(parent, _SNAP_DESTROY, _VOL_ARGS.pack(0, os.fsencode(name)), path)


def is_read_only(path: str) -> bool:
    """Say whether a subvolume is marked read-only.

    Raises:
        OSError: with errno and the path.
    """
    return bool(_flags(path) & _SUBVOL_RDONLY)


def set_read_only(path: str, on: bool) -> None:
    """Mark a subvolume read-only, or let it be written to again.

    Raises:
        OSError: with errno and the path.
    """
    flags = _flags(path)
    wanted = flags | _SUBVOL_RDONLY if on else flags & ~_SUBVOL_RDONLY
    if wanted != flags:
        _on_path(path, _SUBVOL_SETFLAGS, wanted)


def _flags(path: str) -> int:
    return _on_path(path, _SUBVOL_GETFLAGS, 0)


def _on_path(path: str, request: int, value: int) -> int:
    fd = os.open(path, _DIRECTORY)
    argument = bytearray(_FLAGS.pack(value))
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise OSError(error.errno, f"ioctl: {error.strerror}", path) from error
    finally:
        os.close(fd)
    found: int = _FLAGS.unpack(argument)[0]
    return found


def _children(subvolume: int) -> list[tuple[str, str]]:
    """Return the subvolumes right below one: the directory that holds each ("a/b/"), its name."""
    found, lowest = list[tuple[str, str]](), 0
    while True:
        argument = bytearray(_ROOTREFS.size)
        struct.pack_into("Q", argument, 0, lowest)
        try:
            fcntl.ioctl(subvolume, _GET_SUBVOL_ROOTREF, argument)
            more = False
        except OSError as error:
            if error.errno != errno.EOVERFLOW:  # there are more than fit
                raise
            more = True
        lowest, *pairs, count = _ROOTREFS.unpack(argument)
        found += [_place(subvolume, *pairs[2 * n : 2 * n + 2]) for n in range(count)]
        if not more:
            return found


def _place(subvolume: int, tree: int, directory: int) -> tuple[str, str]:
    argument = bytearray(_LOOKUP_USER.pack(directory, tree, b"", b""))
    fcntl.ioctl(subvolume, _INO_LOOKUP_USER, argument)
    _, _, name, path = _LOOKUP_USER.unpack(argument)
    return os.fsdecode(path.partition(b"\0")[0]), os.fsdecode(name.partition(b"\0")[0])


def _ioctl(fd: int, request: int, argument: bytes, path: str) -> None:
    try:
        fcntl.ioctl(fd, request, bytearray(argument))  # of bytes it takes 1024 only
    except OSError as error:
        raise OSError(error.errno, f"ioctl: {error.strerror}", path) from error
