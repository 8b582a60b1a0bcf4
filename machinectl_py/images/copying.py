"""Copies of trees, made aside: whoever is killed over one leaves what nobody names."""

from __future__ import annotations

import fcntl
import os

from machinectl_py.errors import PymachineError
from machinectl_py.images import sweep
from machinectl_py.images.records import StoreLock
from machinectl_py.kernel.writeback import sync_filesystem
from machinectl_py.layout import REMOVED_DIR, layer_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from machinectl_py.images.interruption import Interruption

_LOOK = 0.1  # seconds between looks at what stops it


class Copy:
    """A layer that is being filled, which takes its time; out of sight until it is whole."""

    def __enter__(self) -> Self:
        """Make it, locked, so that nobody removes it meanwhile."""
        self.identifier = os.urandom(8).hex()
        self._path = f"{REMOVED_DIR}/{self.identifier}"
        with StoreLock():
            os.mkdir(self._path, 0o700)
            # The lock, which who copies keeps.
            self.lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove it, unless it was committed."""
        os.close(self.lock)
        if os.path.lexists(self._path):
            sweep.remove_any(self._path)

    def make(self, name: str) -> str:
        """Make an empty directory in it; return its path."""
        os.mkdir(f"{self._path}/{name}", 0o755)
        return f"{self._path}/{name}"

    def take(self, source: str, name: str) -> None:
        """Copy a directory into it, with all that it is made of.

        Raises:
            PymachineError: it cannot be copied.
        """
        self.make(name)
        copy_tree(source, f"{self._path}/{name}", keep=(self.lock,))
        sync_filesystem(self.lock, self._path)

    def commit(self) -> str:
        """Make it a layer, which a record is to name; the store's lock is held."""
        os.rename(self._path, layer_path(self.identifier))
        return self.identifier


def link_tree(source: str, target: str, *, keep: tuple[int, ...]) -> None:
    """Make the directories of another anew, with links to all that is in them.

    Args:
        source: the other.
        target: the directory, empty.
        keep: descriptors that stay open as long as somebody works on it: the lock.

    Raises:
        PymachineError: something cannot be linked; tells what.
    """
    _copy(("--archive", "--link", "--one-file-system", "--", f"{source}/.", target), keep)


def copy_tree(
    source: str,
    target: str,
    *,
    keep: tuple[int, ...],
    interruption: Interruption | None = None,
) -> None:
    """Copy what is in a directory into another, with owners, times, links and attributes.

    Extents are shared where the file system can. What is mounted below `source` is left out.

    Args:
        source: the directory.
        target: the directory, empty.
        keep: descriptors that stay open as long as somebody works on it: the lock, and those that
            the paths lead through.
        interruption: ends it when a signal came.

    Raises:
        PymachineError: something cannot be copied; tells what. Interrupted.
    """
    options = ("--archive", "--reflink=auto", "--one-file-system")
    _copy((*options, "--", f"{source}/.", target), keep, interruption)


def copy_file(
    source: str, target: str, *, keep: tuple[int, ...], interruption: Interruption
) -> None:
    """Copy a file without its holes; args and errors are those of `copy_tree`."""
    _copy(("--sparse=always", "--", source, target), keep, interruption)


def _copy(
    words: tuple[str, ...], keep: tuple[int, ...], interruption: Interruption | None = None
) -> None:
    """Run cp(1). The kernel kills it with us: nobody may write to what is no more held."""
    import subprocess  # late: what is a snapshot, or links, needs none

    process = subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", "cp", *words),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=keep,
        start_new_session=True,  # the terminal's Ctrl-C is for us, who then end it
    )
    told = b""
    try:
        while process.returncode is None:
            try:
                told = process.communicate(timeout=_LOOK)[1]
            except subprocess.TimeoutExpired:
                if interruption is not None:
                    interruption.check()
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise _failure(process.returncode, told.decode(errors="replace").strip().splitlines())


def _failure(status: int, told: list[str]) -> PymachineError:
    if any(line.endswith("No space left on device") for line in told):
        return PymachineError("Cannot copy it: no space left")
    reason = told[-1] if told else f"cp ended with status {status}"
    return PymachineError(f"Cannot copy it: {reason}")
