"""A copy of a file that has no name: shares the blocks where the file system can."""

from __future__ import annotations

import fcntl
import os

_FICLONE = 0x40049409  # <linux/fs.h>
_CHUNK = 1 << 30
_NOT_HERE = (5, 18, 22, 25, 38, 95)  # EIO, EXDEV, EINVAL, ENOTTY, ENOSYS, EOPNOTSUPP
_NO_TMPFILE = (21, 95)  # EISDIR, EOPNOTSUPP
_ENXIO = 6


def copy_unnamed(path: str) -> int:
    """Return a copy of a file, on the same file system, open for writing, close-on-exec.

    It has no name, so it is gone with its last descriptor, whoever is killed. Holes stay holes.

    Raises:
        OSError: with the path; ENOSPC if it does not fit.
    """
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    target = -1
    try:
        target = _open_unnamed(path)
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            _copy_data(source, target)
    except OSError as error:
        if target >= 0:
            os.close(target)
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(source)
    return target


def _open_unnamed(path: str) -> int:
    directory = os.path.dirname(path)
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    name = f"{directory}/.#{os.path.basename(path)}.{os.urandom(8).hex()}"
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.unlink(name)
    return fd


def _copy_data(source: int, target: int) -> None:
    """Copy what is data, in the kernel."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == _ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, end)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        count = min(end - start, _CHUNK)
        try:
            copied = os.copy_file_range(source, target, count, start, start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            os.lseek(target, start, os.SEEK_SET)
            copied = os.sendfile(target, source, start, count)
        if not copied:  # it was cut off meanwhile
            return
        start += copied
