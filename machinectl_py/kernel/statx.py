"""When a file was made; statx(2), of which Python has nothing before 3.15."""

from __future__ import annotations

import ctypes
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc

_STATX_BTIME = 0x800
_SIZE = 256  # sizeof(struct statx)
_MASK, _BTIME_SECONDS, _BTIME_NANOSECONDS = 0, 80, 88  # offsets in it
_AT_SYMLINK_NOFOLLOW = 0x100


def birth_time_ns(path: str) -> int:
    """Return CLOCK_REALTIME of the making of a file, in nanoseconds; 0 if it is not recorded.

    Raises:
        OSError: with errno, "statx" and the path.
    """
    buffer = ctypes.create_string_buffer(_SIZE)
    result = libc.statx(
        const.AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer
    )
    check(result, "statx", path)
    if not ctypes.c_uint32.from_buffer(buffer, _MASK).value & _STATX_BTIME:
        return 0
    seconds = ctypes.c_int64.from_buffer(buffer, _BTIME_SECONDS).value
    return seconds * 10**9 + ctypes.c_uint32.from_buffer(buffer, _BTIME_NANOSECONDS).value
