"""What an image is read from: a file, or a stream that cannot be read twice."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from machinectl_py.errors import ConfigError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = 512  # enough to know any format by


class Source:
    """An open input; what it begins with is known."""

    def __init__(self, fd: int, title: str) -> None:
        """Take the descriptor over, and look at its first bytes.

        Raises:
            OSError: it cannot be read.
        """
        self.fd = fd
        self.title = title  # for people
        status = os.fstat(fd)
        self.is_file = stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)
        self.size = -1  # in bytes; -1 while unknown
        if self.is_file:
            begin = os.lseek(fd, 0, os.SEEK_CUR)
            self.size = os.lseek(fd, 0, os.SEEK_END) - begin
            os.lseek(fd, begin, os.SEEK_SET)
            self.head = os.pread(fd, _HEAD, begin)
            self.taken = b""  # what was read of the stream, and whoever reads it must have first
        else:
            self.taken = self.head = _read_head(fd)
        self.begin = os.lseek(fd, 0, os.SEEK_CUR) if self.is_file else 0

    def position(self) -> int:
        """Return how much of a file has been read, by whomsoever."""
        return os.lseek(self.fd, 0, os.SEEK_CUR) - self.begin


def _read_head(fd: int) -> bytes:
    head = b""
    while len(head) < _HEAD and (more := os.read(fd, _HEAD - len(head))):
        head += more
    return head


@contextmanager
def opened(path: str) -> Iterator[Source]:
    """Open a file, or standard input by "-".

    Raises:
        NotFoundError: there is no such file, or it cannot be opened.
        ConfigError: it is a directory, or a terminal, or empty.
    """
    title = "standard input" if path == "-" else path
    try:
        # A FIFO's writer may come later, as for any reader of it.
        fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"Cannot open {title}: {error.strerror}") from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise ConfigError(f"{title} is a directory", "'pymachine import-fs' takes those.")
        if os.isatty(fd):
            raise ConfigError("No image is read from a terminal", "Redirect a file to it.")
        source = Source(fd, title)
        if not source.head:
            raise ConfigError(f"{title} is empty")
        yield source
    finally:
        os.close(fd)
