"""What is being made goes to the disk while it is being made, and not all at the end.

The disk and the programs that fill it work side by side then. Without this the kernel would begin
half a minute later by itself, or when a tenth of the memory waits for the disk.
"""

from __future__ import annotations

import os
import stat
import threading
import time

from machinectl_py.kernel.writeback import start_writeback, sync_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_PAUSE = 0.1  # seconds, at least: as long as the last one took, so that others get their turn


class Writeback(threading.Thread):
    """While entered, writes out again and again what a directory or file holds.

    Of a directory that is its file system, by syncfs(2): little more goes to the disk than would at
    the end, as what is made is written once. Pipes and devices are left alone.

    What failed is raised at the end, if the block succeeded: the kernel tells of it once for an
    open file, which is one with its duplicates, so the caller would hear of nothing later.
    """

    def __init__(self, fd: int) -> None:
        """Take the descriptor of an open directory or file, which stays the caller's."""
        super().__init__(daemon=True)
        self._mode = os.fstat(fd).st_mode
        self._fd, self._path = os.dup(fd), os.readlink(f"/proc/self/fd/{fd}")
        self._over = threading.Event()
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except RuntimeError:  # there are no more threads to be had: all goes to the disk at the end
            os.close(self._fd)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """End it; wait for the last one, unless the block failed.

        Raises:
            OSError: with errno; the disk failed, or is full.
        """
        self._over.set()
        if kind is not None or self.ident is None:
            return
        self.join()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """Write out and wait, in turn."""
        pause = _PAUSE
        try:
            while not self._over.wait(pause):
                begun = time.monotonic()
                self._write()
                pause = max(_PAUSE, time.monotonic() - begun)
        except OSError as error:
            self._error = error
        finally:
            os.close(self._fd)

    def _write(self) -> None:
        if stat.S_ISDIR(self._mode):
            sync_filesystem(self._fd, self._path)
        elif stat.S_ISREG(self._mode):
            start_writeback(self._fd)
