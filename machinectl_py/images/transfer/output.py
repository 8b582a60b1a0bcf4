"""The file that something is exported to: it appears when it is whole, or not at all.

Until then it has no name (O_TMPFILE of open(2)), so that not even a killed export leaves a part;
on file systems that have no such files it has a hidden one.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from machinectl_py.errors import ConfigError, PymachineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


@contextmanager
def written(path: str) -> Iterator[int]:
    """Give a descriptor to write to; at the end of the block the file has its name.

    Args:
        path: of the file, replaced if it is there; "-" for standard output; a device or FIFO is
            written to as it is.

    Raises:
        ConfigError: standard output is a terminal.
        PymachineError: an OSError of the block, such as a full disk.
    """
    try:
        if path == "-":
            if os.isatty(1):
                raise ConfigError("Nothing is exported to a terminal", "Redirect it to a file.")
            yield 1
        elif os.path.exists(path) and not os.path.isfile(path):
            yield from _as_it_is(path)
        else:
            yield from _whole(path)
    except OSError as error:
        raise PymachineError(f"Cannot write {path}: {error.strerror or error}") from error


def _as_it_is(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _whole(path: str) -> Iterator[int]:
    path = os.path.realpath(path)  # a link stays one
    directory, name = os.path.split(path)
    hidden = f"{directory}/.{name}.{os.urandom(8).hex()}"
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o666
    fd, named = _open(directory, hidden, mode)
    try:
        yield fd
        os.fsync(fd)
        if not named:
            _name(fd, hidden)  # and not `path` at once: only a rename replaces what is there
            named = True
        os.rename(hidden, path)
        named = False
        _sync(directory)
    finally:
        os.close(fd)
        if named:
            os.unlink(hidden)


def _open(directory: str, hidden: str, mode: int) -> tuple[int, bool]:
    """Return a new file in the directory, and whether it has the hidden name."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, mode), False
    except OSError as error:
        if error.errno not in _NO_TMPFILE or not os.path.isdir(directory):
            raise
    return os.open(hidden, flags | os.O_CREAT | os.O_EXCL, mode), True


def _name(fd: int, path: str) -> None:
    """Give an open file a name; linkat(2), O_TMPFILE of open(2)."""
    ours = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Without a directory Python calls link(2), which follows no link.
        os.link(str(fd), path, src_dir_fd=ours, follow_symlinks=True)
    finally:
        os.close(ours)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
