"""Streams between programs that are counted on their way.

The bytes go from pipe to pipe within the kernel; splice(2).
"""

from __future__ import annotations

import errno
import os
import threading

_CHUNK = 1 << 20


class Pump(threading.Thread):
    """Moves a stream on, and counts it."""

    def __init__(self, source: int, sink: int, *, first: bytes = b"", limit: int = 0) -> None:
        """Take two descriptors over; `first` goes before what comes, `limit` is 0 for none."""
        super().__init__(daemon=True)
        self.source, self.sink = source, sink
        self.count = 0  # bytes so far
        self.exceeded = False  # the limit
        self.error: OSError | None = None
        self._first, self._limit = first, limit

    def run(self) -> None:
        """Move all there is, then close both ends."""
        try:
            self._write(self._first)
            while not self.exceeded and self._move():
                pass
        except BrokenPipeError:  # the reader has enough, or failed and says why itself
            pass
        except OSError as error:
            self.error = error
        finally:
            os.close(self.source)
            os.close(self.sink)

    def _move(self) -> bool:
        """Move what is there, or wait for it; say whether there may be more."""
        try:
            moved = os.splice(self.source, self.sink, _CHUNK)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            data = os.read(self.source, 1 << 16)  # one that cannot be spliced
            self._write(data)
            return bool(data)
        self._counted(moved)
        return moved > 0

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self.sink, view)
            view = view[written:]
            self._counted(written)

    def _counted(self, moved: int) -> None:
        self.count += moved
        self.exceeded = 0 < self._limit < self.count
