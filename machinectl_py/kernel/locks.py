"""Lock files by open file description locks; fcntl_locking(2).

Such a lock belongs to the description, so it passes on to children and over an execve(2), and
ends with the last descriptor. systemd's tools lock images the same way.
"""

from __future__ import annotations

import fcntl
import os
import struct

_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
_F_OFD_SETLKW = 38
_FLOCK = "hhqqi4x"  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_FIRST_BYTE = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
_WHOLE_FILE = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def take_lock(path: str, start: int = 0, *, shared: bool = False) -> int | None:
    """Lock a file, made if missing; return its descriptor, or None if it is held.

    Shared, others may hold it so at the same time, and none exclusively.

    The whole file is locked, as systemd's tools do, or all from the byte `start` on: that shuts
    out those who want the whole, and `is_locked` does not take it for one of them.

    A holder that leaves may unlink the file; a lock on such a file locks nothing, so it is
    taken again on the new one. The file is the owner's alone: who can open it can hold it.

    Raises:
        OSError: the file cannot be made.
    """
    wanted = struct.pack(
        _FLOCK, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, os.SEEK_SET, start, 0, 0
    )
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, wanted)
            if _is_at(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        os.close(fd)


def is_locked(path: str) -> bool:
    """Say whether somebody holds the lock of a whole file, neither taking it nor making its file.

    Raises:
        PermissionError: the file is not the caller's to look at.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, _FIRST_BYTE)
    finally:
        os.close(fd)
    kind: int = struct.unpack(_FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK


def drop_lock(path: str, fd: int) -> None:
    """Remove the lock's file, unless others share it, then let the lock go."""
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, _WHOLE_FILE)  # as ours it is so at once
        if _is_at(fd, path):
            os.unlink(path)
    except BlockingIOError:
        pass
    os.close(fd)


def wait_lock(path: str) -> int:
    """Lock a file exclusively as `take_lock`, once nobody else holds it; return its descriptor.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.fcntl(fd, _F_OFD_SETLKW, _WHOLE_FILE)
        if _is_at(fd, path):
            return fd
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
