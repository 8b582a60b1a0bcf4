"""Programs side by side, followed to their end: pipes between them, the room on the disk."""

from __future__ import annotations

import os
import select
import signal

from machinectl_py.errors import ConfigError, PymachineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.images.interruption import Interruption
    from machinectl_py.images.transfer.confine import Confinement
    from machinectl_py.images.transfer.pump import Pump

_PIPE_SIZE = 1 << 20  # the most that is allowed by default; pipe(7)
_LOOK = 0.1  # seconds between looks at the disk
_LINES, _LONGEST = 1000, 500  # of what programs complain of, and of a line of that
# Of the file system, what no image may take: others write there too.
_RESERVE_PART, _RESERVE_MOST = 20, 1 << 30
_F_SETPIPE_SZ = 1031
_NOTICE = ": Removing leading "  # GNU tar's, of what is no error
# How programs tell of a full disk; GNU tar, when a part of a block fits, by the last.
_FULL = ("No space left on device", "Disk quota exceeded", ": Wrote only ")


def wide_pipe() -> tuple[int, int]:
    """Return a pipe that takes a megabyte, where the limits allow it: fewer turns to and fro."""
    import fcntl

    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(write, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:  # pipe-user-pages-soft is used up
        pass
    return read, write


class Room:
    """How much may still be written where images are: not all, since others write there too."""

    def __init__(self, path: str) -> None:
        """Look at the file system of `path`."""
        self.path = path
        found = os.statvfs(path)
        self._blocks = min(found.f_blocks // _RESERVE_PART, _RESERVE_MOST // found.f_frsize)
        self._files = found.f_files // _RESERVE_PART  # 0 where they are not counted, as on btrfs

    def check(self) -> None:
        """Stop what would fill the disk.

        Raises:
            PymachineError: it does.
        """
        found = os.statvfs(self.path)
        if found.f_bavail < self._blocks or found.f_favail < self._files:
            raise PymachineError(
                f"no space left in {self.path} but for the reserve",
                "A twentieth of the file system, at most 1 GB, is left free for others.",
            )


def follow(
    confinement: Confinement,
    pumps: tuple[Pump, ...],
    look: Callable[[], None],
    interruption: Interruption,
) -> tuple[tuple[str, ...], ...]:
    """Wait until all tools have ended and all is moved; return what each of them complained of.

    Args:
        confinement: the running tools.
        pumps: what moves their streams; started here.
        look: called about ten times a second; may raise.
        interruption: ends it when a signal came.

    Raises:
        PymachineError: interrupted.
    """
    for pump in pumps:
        pump.start()
    complaints = dict.fromkeys(confinement.errors, b"")
    unread = set(confinement.errors)
    while unread or not confinement.is_over():
        waited = [*unread, interruption.fd, *([] if confinement.is_over() else [confinement.told])]
        ready = select.select(waited, [], [], _LOOK)[0]
        interruption.check()
        look()
        if confinement.told in ready:
            confinement.read_status()
        for fd in unread.intersection(ready):
            data = os.read(fd, 1 << 16)
            if not data:
                unread.remove(fd)
            elif complaints[fd].count(b"\n") < _LINES:
                complaints[fd] += data
    for pump in pumps[1:] or pumps:  # the first may wait for a stream that nobody reads any more
        pump.join(_LOOK)
    return tuple(tuple(_lines(complaints[fd])) for fd in confinement.errors)


def _lines(data: bytes) -> list[str]:
    """Return what was said, safe for a terminal: it may quote names that strangers chose."""
    lines = data.decode(errors="replace").splitlines()
    return [_printable(line[:_LONGEST]) for line in lines if line.strip()]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def refuse_failure(
    confinement: Confinement, complaints: tuple[tuple[str, ...], ...], what: str
) -> None:
    """Tell of the first tool that failed, by its own first words.

    Raises:
        PymachineError: one did.
    """
    for number, tool in enumerate(confinement.tools):
        status = confinement.statuses[number]
        # Of two, the one that reads less than there is tells why.
        broken = status == -signal.SIGPIPE and tool is not confinement.tools[-1]
        if status == 0 or broken:
            continue
        name = os.path.basename(tool.command[0])
        lines = complaints[number]
        if any(text in line for line in lines for text in _FULL):
            raise PymachineError(f"{what}: no space left")
        fate = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        raise PymachineError(f"{what}: {name}: {_reason(lines, name) or fate}")


def _reason(lines: tuple[str, ...], name: str) -> str:
    """Return what a program that failed said first, but for what it did to names; "" if nothing."""
    told = [line for line in lines if _NOTICE not in line] or lines[:1]
    # So igzip(1) calls standard input.
    return told[0].removeprefix(f"{name}: ").replace("(null) ", "") if told else ""


def position(fd: int) -> int:
    """Return how far a file has been written or read; 0 for what has no such place."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return 0


def parse_size(text: str) -> int:
    """Return a size in bytes of a text such as "4G"; 0 for "".

    Raises:
        ConfigError: it is none.
    """
    number, factor = text.strip(), 1
    for letter, power in (("K", 1), ("M", 2), ("G", 3), ("T", 4)):
        if number[-1:].upper() == letter:
            number, factor = number[:-1], 1024**power
    if text and not (number.isascii() and number.isdigit() and int(number)):
        raise ConfigError(f"'{text}' is no size", "A size is a whole number, with K, M, G or T.")
    return int(number or 0) * factor


def size_text(count: float) -> str:
    """Return a number of bytes for people: "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
