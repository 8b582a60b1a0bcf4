"""Being asked to stop in the middle of long work, at points of the work's own choosing.

An exception out of a signal handler could strike while something is being undone. Here the
handler only notes the signal, and wakes who waits.
"""

from __future__ import annotations

import os
import signal

from machinectl_py.errors import PymachineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered."""

    def __init__(self) -> None:
        """Take no signal yet."""
        self.number = 0  # the first signal that came
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # readable once one came
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup(1)
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            PymachineError: a signal came.
        """
        if self.number:
            raise PymachineError(f"Interrupted by {signal.Signals(self.number).name}")

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        os.eventfd_write(self.fd, 1)
