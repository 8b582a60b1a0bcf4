"""Names that change places in one act, and that take no other's place; renameat2(2)."""

from __future__ import annotations

import os

from machinectl_py.kernel.libc import check, libc

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
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


def rename_new(source_dir: int, source: str, target_dir: int, target: str) -> None:
    """Rename a file to a name that nothing has yet.

    Args:
        source_dir: descriptor of its directory.
        source: its name there.
        target_dir: descriptor of the other directory.
        target: the new name there.

    Raises:
        OSError: EEXIST, something has the name; any other of rename(2), with both names.
    """
    done = libc.renameat2(
        source_dir, os.fsencode(source), target_dir, os.fsencode(target), _RENAME_NOREPLACE
    )
    check(done, "renameat2", source, target)
