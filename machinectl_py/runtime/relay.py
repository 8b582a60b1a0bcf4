"""Pipes in place of our own terminal, for a command that gets no terminal of the machine's.

Who holds a descriptor of a terminal and CAP_SYS_ADMIN can type into it, TIOCSTI of ioctl_tty(2):
the caller's terminal must not enter a machine.
"""

from __future__ import annotations

import os
import select

_PIPE_BUF = 4096  # what a pipe takes without blocking once poll(2) calls it writable; pipe(7)


class Relay:
    """Our standard streams for a command, with a pipe for each that is a terminal."""

    def __init__(self) -> None:
        """Make the pipes; output and error share one, so that their order stays."""
        self.stdio = (0, 1, 2)
        self._inside: list[int] = []  # the command's ends
        self._flows: dict[int, int] = {}  # from where → to where
        self._input = -1  # the pipe that feeds the command, while it is open
        self._stalled = False  # the command reads nothing of it
        if os.isatty(0):
            read, self._input = os.pipe2(os.O_CLOEXEC)
            self._inside.append(read)
            self._flows[0] = self._input
            self.stdio = (read, *self.stdio[1:])
        terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        if terminals:
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            self._inside.append(write)
            self._flows[read] = terminals[0]
            output, error = (write if fd in terminals else fd for fd in (1, 2))
            self.stdio = (self.stdio[0], output, error)

    def begin(self) -> None:
        """Leave the command's ends to the command, which has been started."""
        for fd in self._inside:
            os.close(fd)

    def turn(self, *beside: int) -> set[int]:
        """Wait, then copy what can be copied; return which of the descriptors beside are readable.

        Raises:
            OSError: our terminal cannot be read or written.
        """
        poll = select.poll()
        for fd in beside:
            poll.register(fd, select.POLLIN)
        for source in self._flows:
            if source == 0 and self._stalled:
                poll.register(self._input, select.POLLOUT)
            else:
                poll.register(source, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        self._stalled = 0 in ready and not self._takes_input()
        for source in ready & self._flows.keys():
            if source != 0 or not self._stalled:
                self._copy(source)
        return ready.intersection(beside)

    def finish(self) -> None:
        """Copy what the command, which has ended, has written.

        Raises:
            OSError: our terminal cannot be written.
        """
        for source in self._flows.keys() - {0}:
            while self._copy(source):
                pass

    def _takes_input(self) -> bool:
        poll = select.poll()
        poll.register(self._input, select.POLLOUT)
        return bool(poll.poll(0))

    def _copy(self, source: int) -> bool:
        """Copy a piece; return whether there was one. At its end a flow is closed."""
        try:
            data = os.read(source, _PIPE_BUF)
        except BlockingIOError:
            return False
        sink = self._flows[source]
        try:
            while data:
                data = data[os.write(sink, data) :]
                if not data:
                    return True
        except BrokenPipeError:
            if source != 0:  # the command has closed its input; the output is ours to tell
                raise
        del self._flows[source]
        os.close(self._input if source == 0 else source)
        return False
