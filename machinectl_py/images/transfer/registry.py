"""Transfers under way: each process that makes or writes an image says so in a file of its own.

A transfer's number is the PID of its process, so that none is soon given again. Its file tells the
start time besides, so whoever reads it knows whether that process still lives; what was left by one
that was killed is removed by the next who looks.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

from machinectl_py.codec import decode, encode
from machinectl_py.errors import DeniedError, NotFoundError, PymachineError
from machinectl_py.images.aside import remove_stale
from machinectl_py.images.transfer.logins import without_login
from machinectl_py.kernel.procfs import stat
from machinectl_py.layout import TRANSFERS_DIR
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from machinectl_py.images.transfer.job import Progress

_SUFFIX, _ASIDE = ".json", ".new"
_NOTED = 0.5  # seconds: oftener nobody asks
_PATIENCE = 10.0  # seconds that a transfer has to clean up


class Transfer(Record):
    """A transfer under way."""

    pid: int
    kind: str  # as the verb is called: "pull-tar"
    local: str  # name of the image
    remote: str  # URL, path or name of what is at the other end
    start_ticks: int  # of the process, since boot
    phase: str = ""  # what it does
    percent: int = -1  # of that; -1 where it is not known


class Reporter:
    """Passes progress on, and notes it for others."""

    def __init__(self, transfer: Transfer, progress: Progress) -> None:
        """Begin with this."""
        self.transfer, self._progress = transfer, progress
        self._noted = 0.0

    def __call__(self, phase: str, detail: str) -> None:
        """Take in what is done and how far it is."""
        self._progress(phase, detail)
        now = time.monotonic()
        if phase == self.transfer.phase and now - self._noted < _NOTED:
            return
        self._noted = now
        self.transfer = self.transfer.replace(phase=phase, percent=percent_of(detail))
        try:
            _write(self.transfer)
        except OSError:  # /run is full: nobody can be told, which is no reason to stop
            pass


def percent_of(detail: str) -> int:
    """Return how far that is in percent; -1 where it does not say."""
    words = detail.split()
    for first, middle, last in zip(words, words[1:], (*words[2:], ""), strict=False):
        if middle == "%" and first.isdigit():
            return min(100, int(first))
        if middle == "of" and first.isdigit() and last.isdigit() and int(last):
            return min(100, 100 * int(first) // int(last))
    return -1


@contextmanager
def registered(kind: str, local: str, remote: str, progress: Progress) -> Iterator[Progress]:
    """Have others see this process as a transfer; give what is to be told of progress.

    Args:
        kind: as the verb is called.
        local: name of the image.
        remote: URL, path or name of what is at the other end.
        progress: told all that the result is told.

    Raises:
        OSError: /run cannot be written to; with the path.
    """
    os.makedirs(TRANSFERS_DIR, 0o755, exist_ok=True)
    transfers()  # what was left goes
    own = os.getpid()
    transfer = Transfer(
        pid=own,
        kind=kind,
        local=local,
        remote=without_login(remote),
        start_ticks=stat(own).start_ticks,
    )
    try:
        _write(transfer)
        yield Reporter(transfer, progress)
    finally:
        _remove(transfer.pid)


def transfers() -> tuple[Transfer, ...]:
    """Return the transfers under way, by PID; what was left of others is removed.

    Raises:
        OSError: with the path.
    """
    found = []
    for pid in _pids():
        transfer = _read(pid)
        if transfer is not None and _lives(transfer):
            found.append(transfer)
        elif transfer is not None or not os.path.isdir(f"/proc/{pid}"):
            _remove(pid)
    return tuple(found)


def cancel(pid: int) -> None:
    """End a transfer, and wait until it has removed what it made.

    Raises:
        DeniedError: the caller may not.
        NotFoundError: there is none of this PID.
        PymachineError: it did not end; it is killed then.
    """
    transfer = next((one for one in transfers() if one.pid == pid), None)
    if transfer is None:
        raise NotFoundError(
            f"There is no transfer {pid}", "'pymachine list-transfers' shows those under way."
        )
    try:
        pidfd = os.pidfd_open(transfer.pid)
    except ProcessLookupError:  # it has just ended
        return
    try:
        if not _lives(transfer):  # the descriptor may be another process's
            return
        _end(transfer, pidfd)
    finally:
        os.close(pidfd)
    if transfer in transfers():  # a zombie that nobody waits for
        _remove(pid)


def _end(transfer: Transfer, pidfd: int) -> None:
    import select

    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if select.select([pidfd], [], [], _PATIENCE)[0]:
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [])
    except PermissionError as error:
        raise DeniedError(
            f"Transfer {transfer.pid} is another user's", "Try it with sudo."
        ) from error
    except ProcessLookupError:
        return
    remove_stale()
    raise PymachineError(
        f"Transfer {transfer.pid} did not end within {_PATIENCE:.0f} seconds, and was killed"
    )


def _path(pid: int) -> str:
    return f"{TRANSFERS_DIR}/{pid}{_SUFFIX}"


def _pids() -> list[int]:
    """Return the PIDs that have a file, also one that is just being written."""
    try:
        entries = os.listdir(TRANSFERS_DIR)
    except FileNotFoundError:
        return []
    stems = {entry.removesuffix(_ASIDE).removesuffix(_SUFFIX) for entry in entries}
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def _write(transfer: Transfer) -> None:
    path = _path(transfer.pid)
    aside = f"{path}{_ASIDE}"
    with open(aside, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(encode(transfer.to_data()))
    os.rename(aside, path)


def _read(pid: int) -> Transfer | None:
    """Return what a file says; None if it is gone, or makes no sense."""
    try:
        with open(_path(pid), encoding="utf-8", errors="surrogateescape") as file:
            return Transfer.from_data(decode(file.read()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _lives(transfer: Transfer) -> bool:
    try:
        found = stat(transfer.pid)
    except OSError:
        return False
    return found.start_ticks == transfer.start_ticks and found.state not in ("Z", "X")


def _remove(pid: int) -> None:
    for path in (_path(pid), f"{_path(pid)}{_ASIDE}"):
        try:
            os.unlink(path)
        except OSError:  # gone; or not ours to remove
            pass
