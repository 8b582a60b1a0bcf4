"""Changes in directories; inotify(7)."""

from __future__ import annotations

import ctypes
import os
import sys

from machinectl_py.kernel.libc import check, libc
from machinectl_py.record import Record

IN_CREATE = 0x100
IN_DELETE = 0x200
IN_MOVED_TO = 0x80
IN_IGNORED = 0x8000
IN_Q_OVERFLOW = 0x4000
IN_ONLYDIR = 0x1000000

libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_HEADER = 16  # bytes of struct inotify_event before its name


class Change(Record):
    """What happened in a watched directory."""

    watch: int  # which; -1 if changes were lost
    mask: int
    name: str  # of the entry; "" of the directory itself


def open_inotify() -> int:
    """Return a new descriptor, close-on-exec, that does not block.

    Raises:
        OSError: the user has too many.
    """
    return check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watch a directory and return the watch's number.

    Raises:
        OSError: it is not there, or the user has too many watches.
    """
    return check(libc.inotify_add_watch(fd, os.fsencode(path), mask), "inotify_add_watch", path)


def read_changes(fd: int) -> tuple[Change, ...]:
    """Return what has happened since the last call; nothing if nothing has."""
    found: list[Change] = []
    while True:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return tuple(found)
        at = 0
        while at < len(data):
            watch = int.from_bytes(data[at : at + 4], sys.byteorder, signed=True)
            mask = int.from_bytes(data[at + 4 : at + 8], sys.byteorder)
            length = int.from_bytes(data[at + 12 : at + 16], sys.byteorder)
            name = data[at + _HEADER : at + _HEADER + length].rstrip(b"\0")
            found.append(Change(watch=watch, mask=mask, name=os.fsdecode(name)))
            at += _HEADER + length
