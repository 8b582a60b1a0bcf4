"""Files that belong to an image and stand beside it: settings, root hashes, verity data.

NAME.nspawn is of systemd.nspawn(5); NAME.roothash, NAME.verity and their like of systemd-nspawn(1).
"""

from __future__ import annotations

import os

from machinectl_py.images.held import ASIDE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

SETTINGS = ".nspawn"
# What is true of one content of a disk image alone, and worse than nothing for another.
HASHES = (".roothash", ".roothash.p7s", ".usrhash", ".usrhash.p7s", ".verity")
_CHUNK = 1 << 20


def stem_of(path: str) -> str:
    """Return what the names beside an image begin with: its path without ".raw"."""
    return path.removesuffix(".raw")


def rename_beside(path: str, target: str) -> None:
    """Have the hashes beside a disk image follow it to another name.

    Raises:
        OSError: with the paths.
    """
    if not path.endswith(".raw"):
        return
    for suffix in HASHES:
        if os.path.lexists(stem_of(path) + suffix):
            os.rename(stem_of(path) + suffix, stem_of(target) + suffix)


def remove_beside(path: str, *, but: frozenset[str] = frozenset()) -> None:
    """Remove the hashes beside a disk image that is no more.

    Args:
        path: of the image.
        but: suffixes of those that stay.

    Raises:
        OSError: with the path.
    """
    if not path.endswith(".raw"):
        return
    for suffix in HASHES:
        if suffix not in but and os.path.lexists(stem_of(path) + suffix):
            os.unlink(stem_of(path) + suffix)


class Companions:
    """Files that are to stand beside an image that is being made; hidden until then."""

    def __init__(self, directory: str) -> None:
        """Have none yet; `directory` is the image's."""
        self._directory = directory
        self._hidden: dict[str, tuple[str, int]] = {}  # suffix → path, descriptor
        self.kept: list[str] = []  # paths of others that were there, and stay

    @property
    def suffixes(self) -> frozenset[str]:
        """The suffixes of those that were added."""
        return frozenset(self._hidden)

    def add(self, suffix: str, source: BinaryIO) -> None:
        """Copy a file to a hidden one, written to the disk.

        Raises:
            OSError: with the path.
        """
        import fcntl

        path = f"{self._directory}/{ASIDE}{os.urandom(8).hex()}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hidden[suffix] = (path, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)  # says that it is no leftover, as long as we live
        while data := source.read(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.fsync(fd)

    def show(self, stem: str, *, replace: bool) -> tuple[str, ...]:
        """Give them their names; return the paths that there are now and were not before.

        Args:
            stem: what the names begin with.
            replace: others of these names; else those stay, and are told in `kept`.

        Raises:
            OSError: with the path.
        """
        shown = []
        for suffix, (hidden, _) in self._hidden.items():
            path = stem + suffix
            if not os.path.lexists(path):
                shown.append(path)
            elif not replace:
                if not _is_same(hidden, path):
                    self.kept.append(path)
                continue
            os.rename(hidden, path)
        return tuple(shown)

    def close(self) -> None:
        """Remove what has no other name than the hidden one."""
        for path, fd in self._hidden.values():
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            os.close(fd)
        self._hidden.clear()


def _is_same(first: str, second: str) -> bool:
    import filecmp

    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False
