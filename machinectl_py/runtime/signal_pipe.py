"""Signals as bytes of a pipe, so that one poll(2) waits for them too.

A handler written in Python runs between two instructions of the interpreter. A signal that comes
just before a system call would wait for the call to end, for ever if that waits for a process;
the byte in the pipe, written by the interpreter's own handler, is there before poll(2) looks.
"""

from __future__ import annotations

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self


class SignalPipe:
    """Takes signals while it is entered, but for those that the caller ignores, as by nohup(1)."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        """Take none yet."""
        self.fd = -1  # readable once a signal came
        self._numbers = numbers
        self._write = -1
        self._previous: dict[int, Any] = {}
        self._previous_fd = -1

    def __enter__(self) -> Self:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._previous_fd = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._numbers:
            previous: Any = _signal.getsignal(number)
            if previous != _signal.SIG_IGN:
                self._previous[number] = previous
                _signal.signal(number, _to_the_pipe_alone)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            _signal.signal(number, _signal.SIG_DFL if previous is None else previous)
        _signal.set_wakeup_fd(self._previous_fd)
        os.close(self.fd)
        os.close(self._write)

    def arrived(self) -> bytes:
        """Return the numbers of the signals that came since."""
        try:
            return os.read(self.fd, 256)
        except BlockingIOError:
            return b""


def _to_the_pipe_alone(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter has written the number into the pipe."""
