"""Having what was written go to the disk; syncfs(2), sync_file_range(2).

Both take as long as the disk does. So unlike all else in this package they let other threads of
the interpreter run meanwhile.
"""

from __future__ import annotations

import ctypes

from machinectl_py.kernel.libc import check

_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (
    ctypes.c_int,
    ctypes.c_longlong,
    ctypes.c_longlong,
    ctypes.c_uint,
)


def sync_filesystem(fd: int, path: str) -> None:
    """Write out the file system that an open file is on, and wait for it.

    Args:
        fd: descriptor of any file there; its duplicates count as the same, and are told once.
        path: names it in the error.

    Raises:
        OSError: with errno, "syncfs" and the path; also of what failed since `fd` was opened and
            nobody was told of.
    """
    check(_libc.syncfs(fd), "syncfs", path)


def start_writeback(fd: int) -> None:
    """Begin to write out what an open file holds, and do not wait for the end.

    Failures of the disk are left to the fsync(2) to come.

    Raises:
        OSError: with errno and "sync_file_range": ESPIPE if it is no file, EIO.
    """
    check(_libc.sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE), "sync_file_range")
