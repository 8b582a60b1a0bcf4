"""Two names that change places in one act; renameat2(2), RENAME_EXCHANGE."""

from __future__ import annotations

import os

from machinectl_py.kernel.libc import check, libc

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: str, second: str) -> None:
    """Have two paths of one file system, both there, change places.

    Raises:
        OSError: EINVAL, the file system cannot; any other of rename(2), with both paths.
    """
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE
    )
    check(done, "renameat2", first, second)
