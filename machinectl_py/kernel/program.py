"""A program that is given a text and says one, without `subprocess` and the 8 ms of its import."""

from __future__ import annotations

import os


class Program:
    """A program that runs; what it reads and says is in memory, so nobody waits for a pipe."""

    def __init__(self, command: tuple[str, ...], text: str = "") -> None:
        """Start it.

        Args:
            command: an absolute path, and arguments.
            text: for its standard input.

        Raises:
            OSError: it cannot be executed.
        """
        self._files = [os.memfd_create(name) for name in ("input", "output", "errors")]
        data = text.encode()
        while data:
            data = data[os.write(self._files[0], data) :]
        os.lseek(self._files[0], 0, os.SEEK_SET)
        standard = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self._files)]
        try:
            # Signals that are blocked here, while steps are taken, are not for it.
            self._pid = os.posix_spawn(
                command[0], command, os.environ, file_actions=standard, setsigmask=()
            )
        except BaseException:
            self._close()
            raise

    def wait(self) -> tuple[int, str, str]:
        """Return its exit status, negative for a signal, and what it said as output and errors."""
        _, status = os.waitpid(self._pid, 0)
        said = [_read(fd) for fd in self._files[1:]]
        self._close()
        return os.waitstatus_to_exitcode(status), said[0], said[1]

    def _close(self) -> None:
        for fd in self._files:
            os.close(fd)


def _read(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    found = b""
    while data := os.read(fd, 1 << 20):
        found += data
    return found.decode(errors="replace")
