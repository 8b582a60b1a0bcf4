"""Has the forwarded ports of a running machine follow its addresses.

Beside `runtime/watch.py` in the minimal interpreter: of the standard library only modules in C.
The addresses are asked for, and the rules set, by a process of its own, `runtime/expose.py`.
"""

from __future__ import annotations

import posix
import sys

_MOST = 1 << 16


class Exposure:
    """A socket that tells of changes, and the process that follows the last one."""

    def __init__(self, fd: int, *, name: str, leader: int, source: str) -> None:
        """Own the socket, which is older than the machine's first address."""
        self._fd = fd
        code = f"import sys;sys.path.insert(0,{source!r});"
        code += "from machinectl_py.runtime.expose import main;main()"
        self._command = [sys.executable, "-SI", "-c", code, name, f"{leader}"]
        self._pid, self._pidfd, self._stale = 0, -1, False

    def descriptors(self) -> list[int]:
        """Return what to wait for."""
        return [self._fd, self._pidfd] if self._pid else [self._fd]

    def handle(self, ready: set[int]) -> None:
        """Follow a change; one process at a time, and another for what came meanwhile."""
        if self._fd in ready:
            self._drain()
            self._stale = True
        if self._pid and self._pidfd in ready:
            self._reap()
        if self._stale and not self._pid:
            self._start()

    def close(self) -> None:
        """Wait for the process, so that it is in nobody's way."""
        if self._pid:
            self._reap()
        posix.close(self._fd)

    def _start(self) -> None:
        self._stale = False
        self._pid = posix.posix_spawn(sys.executable, self._command, posix.environ, setsigmask=())
        self._pidfd = posix.pidfd_open(self._pid)

    def _reap(self) -> None:
        posix.waitpid(self._pid, 0)
        posix.close(self._pidfd)
        self._pid, self._pidfd = 0, -1

    def _drain(self) -> None:
        while True:
            try:
                posix.read(self._fd, _MOST)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: there were more than the kernel keeps, and we look anyway
                continue
