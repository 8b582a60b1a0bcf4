"""By which ids a thread makes files, apart from who it is else; setfsuid(2), setfsgid(2)."""

from __future__ import annotations

from machinectl_py.kernel.capabilities import restore_effective
from machinectl_py.kernel.libc import libc


class FileIds:
    """Make files as another user and group for a while, with all capabilities that we have.

    A file system that is mounted with mapped ids lets nobody make files whom its map does not have.
    """

    def __init__(self, number: int) -> None:
        """Take the id, of user and group."""
        self._number = number
        self._before = (-1, -1)

    def __enter__(self) -> None:
        """Change; the kernel takes CAP_CHOWN and others of files back from all but 0.

        Raises:
            OSError: with errno and the call that was to get the capabilities again.
        """
        self._before = libc.setfsgid(self._number), libc.setfsuid(self._number)
        restore_effective()

    def __exit__(self, *_: object) -> None:
        """Change back."""
        group, user = self._before
        libc.setfsgid(group)
        libc.setfsuid(user)
