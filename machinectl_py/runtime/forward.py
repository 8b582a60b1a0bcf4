"""Between the caller's terminal and a pseudo-terminal of a machine: bytes, modes, sizes, signals.

The caller's terminal becomes raw, so that control characters mean something inside only, and is
given back as it was however this ends. Neither side can block the other: an output that is not
read, or a program that reads no input, stops what comes after it and nothing else.
"""

from __future__ import annotations

import errno
import os
import select
import time

from machinectl_py.kernel import const, terminal
from machinectl_py.record import Record
from machinectl_py.runtime.signal_pipe import SignalPipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Protocol, Self

    from machinectl_py.runtime.tint import Tint

    class Beside(Protocol):
        """What a caller of `forward` wants to be told of meanwhile."""

        letters: bytes  # hot keys: ^] twice, then one of these

        def descriptors(self) -> list[int]:
            """Return what else is to be waited for."""

        def patience(self) -> int | None:
            """Return how many milliseconds at most to wait for them; None: for ever."""

        def handle(self, ready: set[int]) -> None:
            """Handle those of the descriptors that are ready."""

        def signalled(self, number: int) -> bool:
            """Say whether a signal has been dealt with; else it means what `forward` says."""

        def pressed(self, letter: str) -> None:
            """Do what a hot key asks."""

    EndReason = Literal["ended", "detached", "signal"]
    AtEnd = Literal["type", "insist", "stay", "leave"]

_READ_SIZE = 1 << 16
_FULL = 1 << 16  # bytes waiting to be written above which no more are read
# After POLLOUT a pipe takes this much without blocking; pipe(7), PIPE_BUF.
_PIPE_BUF = 4096
# What a terminal can hold that nobody has read: tty_buffer.c has a limit of 640 KiB.
_LEFT_AT_EXIT = 1 << 20
_REOPEN_WAIT = 50  # milliseconds
_ESCAPE, _ESCAPE_TIMES, _ESCAPE_WITHIN = 0x1D, 3, 1.0  # ^]
_END_OF_FILE = b"\x04"
_QUIET = {"insist": 0.2, "leave": 1.0}  # seconds without output after the end of the input
_KEYS = {const.SIGINT: b"\x03", const.SIGQUIT: b"\x1c"}  # from outside a terminal
_FATAL = (const.SIGTERM, const.SIGHUP)
_TAKEN = (*_FATAL, *_KEYS, const.SIGWINCH, const.SIGCONT)


class Outcome(Record):
    """How forwarding came to its end."""

    reason: EndReason  # "ended": by the machine's side; "detached": ^] three times
    signal: int = 0  # SIGTERM or SIGHUP; SIGHUP too if the caller's terminal is gone


def forward(
    master: int,
    *,
    source: int = -1,
    pidfd: int = -1,
    escape: bool = False,
    at_end: AtEnd = "type",
    first_output: bytes = b"",
    input_fd: int = 0,
    output_fd: int = 1,
    beside: Beside | None = None,
    tint: Tint | None = None,
) -> Outcome:
    """Copy between the caller and a pseudo-terminal until one side ends it.

    Input that is no terminal may end; `at_end` says what then. SIGINT and SIGQUIT become the keys
    of a terminal; SIGTERM and SIGHUP end the forwarding.

    Args:
        master: the pseudo-terminal's master; it becomes non-blocking.
        source: where output comes from if not the master: a socket of the supervisor's.
        pidfd: a process with whose end the output ends; while it lives, a slave that is closed
            may be opened again, as init and getty do. -1: the first end of file is the end.
        escape: whether ^] three times within a second detaches.
        at_end: of the input: "type" an end of file, "insist" that the program inside reads one,
            only "stay", or "leave" once nothing is written any more.
        first_output: what the caller sees before all else.
        input_fd: the caller's input; -1: none.
        output_fd: the caller's output.
        beside: what else is to be waited for, and who is asked about signals.
        tint: how the output is to look, if it is a terminal.

    Raises:
        BrokenPipeError: nobody reads the output any more.
        OSError: the output cannot be written.
    """
    with SignalPipe(_TAKEN) as signals, _RawMode(input_fd) as mode:
        copy = _Copy(master, source, pidfd, input_fd, output_fd)
        copy.escape = EscapeKeys(beside.letters if beside else b"") if escape else None
        copy.beside = beside
        copy.tint = tint if tint and os.isatty(output_fd) else None
        copy.at_end, copy.to_output = at_end, first_output
        copy.copy_window_size()
        if copy.tint:
            copy.to_output = copy.tint.begin() + copy.to_output
        try:
            while (outcome := copy.turn(signals, mode)) is None:
                pass
        finally:
            copy.close()
        return outcome


class _RawMode:
    """The caller's terminal made raw; nothing if its input is no terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._previous: terminal.Attributes = []

    def __enter__(self) -> Self:
        if os.isatty(self._fd):
            self._previous = terminal.attributes(self._fd)
            self.set()
        return self

    def set(self) -> None:
        """Make it raw, again after a shell had it (SIGCONT)."""
        if self._previous:
            terminal.set_attributes(self._fd, terminal.raw(self._previous))

    def __exit__(self, *_: object) -> None:
        if self._previous:
            try:
                terminal.set_attributes(self._fd, self._previous)
            except OSError:  # it is gone
                pass


class EscapeKeys:
    """Watches input for ^] three times within a second."""

    def __init__(self, letters: bytes = b"") -> None:
        """Start with no key seen; `letters` mean something after ^] twice."""
        self._times: list[float] = []
        self._letters = letters
        self.letter = ""  # the one that the last input ended a hot key with

    def seen_in(self, data: bytes, now: float) -> bool:
        """Say whether these bytes, read at `now` seconds, complete the escape."""
        self.letter = ""
        for byte in data:
            if byte != _ESCAPE:
                recent = [at for at in self._times if now - at <= _ESCAPE_WITHIN]
                if byte in self._letters and len(recent) == _ESCAPE_TIMES - 1:
                    self.letter = chr(byte)
                self._times.clear()
                continue
            self._times = [at for at in self._times if now - at <= _ESCAPE_WITHIN]
            self._times.append(now)
            if len(self._times) == _ESCAPE_TIMES:
                return True
        return False


class _Copy:
    """The two directions and what is on its way in each."""

    escape: EscapeKeys | None = None
    beside: Beside | None = None
    tint: Tint | None = None
    at_end: AtEnd = "type"
    input_ended = False
    quiet_at = 0.0  # CLOCK_MONOTONIC from which on there was no output; 0: it does not matter

    def __init__(self, master: int, source: int, pidfd: int, input_fd: int, output_fd: int) -> None:
        self.master, self.source = master, master if source < 0 else source
        self.pidfd, self.input, self.caller = pidfd, input_fd, output_fd
        self.output = _non_blocking(output_fd)
        self.to_master, self.to_output = b"", b""
        self.input_open, self.source_open = _is_open(input_fd), True
        self.input_is_terminal = self.input_open and os.isatty(input_fd)
        self.line_begins = True
        self.hung_up = False  # no slave is open; one may be again
        self.left_at_exit = -1  # bytes that may be read when the process has ended; -1 before
        os.set_blocking(master, False)
        os.set_blocking(self.source, False)

    def close(self) -> None:
        """Give the terminal its look back, and close what we opened."""
        if self.tint:
            try:
                os.write(self.output, self.tint.end())
            except OSError:  # it is gone, or takes no more
                pass
        if self.output != self.caller:
            os.close(self.output)

    def copy_window_size(self) -> None:
        """Give the machine's terminal the size of the caller's, if that is one."""
        size = terminal.window_size(self.caller)
        if size is None and self.input >= 0:
            size = terminal.window_size(self.input)
        if size:
            terminal.set_window_size(self.master, *size)

    def turn(self, signals: SignalPipe, mode: _RawMode) -> Outcome | None:
        """Wait, then move what can be moved; return the outcome once there is one."""
        if not self.source_open and not self.to_output:
            return Outcome(reason="ended")
        ready = self._wait(signals.fd)
        outcome = self._obey(signals.arrived(), mode) if signals.fd in ready else None
        if self.beside:
            self.beside.handle(ready)
        if self.pidfd in ready:
            self.left_at_exit = _LEFT_AT_EXIT
        if self.source in ready or self.left_at_exit >= 0:
            self._read_source()
        if outcome is None and self.input in ready:
            outcome = self._read_input()
        if self.to_master and not self.hung_up:
            self._write_master()
        if outcome is None and self.to_output:
            outcome = self._write_output()
        return outcome or self._when_quiet()

    def _wait(self, signals: int) -> set[int]:
        """Return the descriptors that are ready."""
        ending = self.left_at_exit >= 0
        reads = self.source_open and len(self.to_output) < _FULL
        wanted = {signals: select.POLLIN}
        # A master without a slave is "hung up" all the time, and tells of no change.
        if not self.hung_up:
            if self.to_master:
                wanted[self.master] = select.POLLOUT
            if reads:
                wanted[self.source] = wanted.get(self.source, 0) | select.POLLIN
        if self.input_open and len(self.to_master) < _FULL:
            wanted[self.input] = select.POLLIN
        if self.to_output:
            wanted[self.output] = select.POLLOUT
        if self.pidfd >= 0 and not ending:
            wanted[self.pidfd] = select.POLLIN
        for fd in self.beside.descriptors() if self.beside else ():
            wanted[fd] = select.POLLIN
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        patience = self._patience(at_once=ending and reads)
        self.hung_up = False
        return {fd for fd, _ in poll.poll(patience)}

    def _patience(self, *, at_once: bool) -> int | None:
        """Return how many milliseconds to wait at most; None: for ever."""
        spans = [0] if at_once else [_REOPEN_WAIT] if self.hung_up else []
        beside = self.beside.patience() if self.beside else None
        if beside is not None:
            spans.append(beside)
        if self.quiet_at:
            spans.append(max(int((self.quiet_at - time.monotonic()) * 1000) + 1, 0))
        return min(spans, default=None)

    def _obey(self, signals: bytes, mode: _RawMode) -> Outcome | None:
        for number in signals:
            if self.beside and self.beside.signalled(number):
                continue
            if number in _FATAL:
                return Outcome(reason="signal", signal=number)
            self.to_master += _KEYS.get(number, b"")
            if number == const.SIGCONT:
                mode.set()
            if number in (const.SIGCONT, const.SIGWINCH):
                self.copy_window_size()
        return None

    def _read_source(self) -> None:
        """Read what the machine has written; find out whether more can come."""
        if not self.source_open or len(self.to_output) >= _FULL:
            return
        data = _read(self.source)
        if data:
            self._expect_quiet()
        self.to_output += self.tint.paint(data or b"") if self.tint else data or b""
        if self.left_at_exit >= 0:  # nothing to read now is nothing to read ever
            self.left_at_exit = max(self.left_at_exit - len(data or b""), 0)
            self.source_open = bool(data) and self.left_at_exit > 0
        elif data == b"":
            self.hung_up = self.source_open = self.pidfd >= 0

    def _read_input(self) -> Outcome | None:
        data = _read(self.input)
        if data is None:
            return None
        if not data and self.input_is_terminal:
            return Outcome(reason="signal", signal=const.SIGHUP)
        if not data:
            self.input_open, self.input_ended = False, True
            self._expect_quiet()
            if self.at_end in ("type", "insist"):
                # An unfinished line takes one to be handed over and one to end; termios(3), VEOF.
                self.to_master += _END_OF_FILE if self.line_begins else _END_OF_FILE * 2
            return None
        if self.escape and self.escape.seen_in(data, time.monotonic()):
            return Outcome(reason="detached")
        if self.beside and self.escape and self.escape.letter:
            self.beside.pressed(self.escape.letter)
            return None
        self.line_begins = data.endswith(b"\n")
        self.to_master += data
        return None

    def _expect_quiet(self) -> None:
        if self.input_ended and self.at_end in _QUIET:
            self.quiet_at = time.monotonic() + _QUIET[self.at_end]

    def _when_quiet(self) -> Outcome | None:
        """Do what is to be done when the input has ended and nothing more is written.

        An end of file that was typed before a program, such as a shell, left the canonical mode is
        a NUL byte to it: n_tty.c keeps it so. It is typed again at the program's next prompt.
        """
        if not self.quiet_at or time.monotonic() < self.quiet_at:
            return None
        self.quiet_at = 0.0
        if self.at_end == "leave":
            return Outcome(reason="detached")
        if not terminal.is_canonical(self.master):
            self.to_master += _END_OF_FILE
        return None

    def _write_master(self) -> None:
        try:
            self.to_master = self.to_master[os.write(self.master, self.to_master) :]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.hung_up = True

    def _write_output(self) -> Outcome | None:
        try:
            self.to_output = self.to_output[os.write(self.output, self.to_output[:_PIPE_BUF]) :]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return Outcome(reason="signal", signal=const.SIGHUP)
        return None


def _read(fd: int) -> bytes | None:
    """Return what is there to read; b"" at the end or once hung up, None if there is nothing."""
    try:
        return os.read(fd, _READ_SIZE)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ECONNRESET):
            raise
        return b""


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _non_blocking(fd: int) -> int:
    """Return a terminal opened anew to be non-blocking; other files as they are.

    The flag belongs to the open file description, which the caller's shell shares.
    """
    if os.isatty(fd):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:  # of another devpts, or not ours to open: writes may block
            pass
    return fd
