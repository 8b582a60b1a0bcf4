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


class Copy:
    """A layer that is being filled, which takes its time; out of sight until it is whole."""

    def __enter__(self) -> Self:
        """Make it, locked, so that nobody removes it meanwhile."""
        self.identifier = os.urandom(8).hex()
        self._path = f"{REMOVED_DIR}/{self.identifier}"
        with StoreLock():
            os.mkdir(self._path, 0o700)
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove it, unless it was committed."""
        os.close(self._fd)
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
        copy_tree(source, f"{self._path}/{name}")
        sync_filesystem(self._fd, self._path)

    def commit(self) -> str:
        """Make it a layer, which a record is to name; the store's lock is held."""
        os.rename(self._path, layer_path(self.identifier))
        return self.identifier


def link_tree(source: str, target: str) -> None:
    """Make the directories of another anew, with links to all that is in them.

    Raises:
        PymachineError: something cannot be linked; tells what.
    """
    _copy(("--archive", "--link", "--one-file-system"), source, target)


def copy_tree(source: str, target: str, *, keep: tuple[int, ...] = ()) -> None:
    """Copy what is in a directory into another, with owners, times, links and attributes.

    Extents are shared where the file system can. What is mounted below `source` is left out.

    Args:
        source: the directory.
        target: the directory, empty.
        keep: descriptors that the paths lead through.

    Raises:
        PymachineError: something cannot be copied; tells what.
    """
    _copy(("--archive", "--reflink=auto", "--one-file-system"), source, target, keep)


def _copy(options: tuple[str, ...], source: str, target: str, keep: tuple[int, ...] = ()) -> None:
    import subprocess

    words = ("cp", *options, "--", f"{source}/.", target)
    done = subprocess.run(
        words, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=keep
    )
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise PymachineError(
            f"Cannot copy {source} to {target}: cp ended with status {done.returncode}",
            told[-1] if told else "",
        )
