"""What must stand still while the store is changed: machines that do not run, images.

The locks are those by which a machine that runs is known: our own of its name, systemd's of its
root and of its image.
"""

from __future__ import annotations

import os
import time

from machinectl_py.errors import ConflictError
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.layout import LOCK_DIR, ROOT_LOCK_DIR, lock_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# Of what is made or removed beside images; what is not locked was left by one who was killed.
ASIDE = ".#pymachine."
_POLL = 0.005  # seconds


class Stopped:
    """Machines by name, of which none runs or can be started meanwhile."""

    def __init__(self, *names: str) -> None:
        """Mean these; they need not exist."""
        self._names = sorted(set(names))  # one order for all, so that none waits for ever
        self._locks: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        """Take their locks; waits for another verb, not for a machine.

        Raises:
            ConflictError: one runs.
        """
        try:
            for name in self._names:
                self._locks.append((lock_path(name), _hold(name)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        """Let them go."""
        while self._locks:
            drop_lock(*self._locks.pop())

    @property
    def lock(self) -> int:
        """The descriptor of the first lock, for a process that is to keep it."""
        return self._locks[0][1]


def _hold(name: str) -> int:
    os.makedirs(LOCK_DIR, mode=0o755, exist_ok=True)
    path = lock_path(name)
    # All but the first byte: nobody takes us for a supervisor.
    while (fd := take_lock(path, start=1)) is None:
        if is_locked(path):
            raise ConflictError(
                f"Machine '{name}' is running", f"'pymachine poweroff {name}' ends it."
            )
        time.sleep(_POLL)
    return fd


class ImageLock:
    """An image that nobody changes meanwhile; exclusively, that nobody uses either."""

    def __init__(self, path: str, *, shared: bool = False, held: str = "") -> None:
        """Mean the image at this absolute path; `held` is a lock that the caller has already."""
        self._path, self._shared, self._held = path, shared, held
        self._locks: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        """Take the two locks that systemd's tools take.

        Raises:
            ConflictError: somebody holds one.
        """
        os.makedirs(ROOT_LOCK_DIR, mode=0o700, exist_ok=True)
        status = os.stat(self._path)
        directory, _, name = self._path.rpartition("/")
        paths = [f"{ROOT_LOCK_DIR}/inode-{status.st_dev}:{status.st_ino}"]
        if os.access(directory, os.W_OK):
            paths.insert(0, f"{directory}/.#{name}.lck")
        for path in paths:
            if path == self._held:
                continue
            fd = take_lock(path, shared=self._shared)
            if fd is None:
                self.__exit__()
                raise ConflictError(
                    f"The image {self._path} is in use",
                    "'pymachine list' shows the machines that run.",
                )
            self._locks.append((path, fd))
        return self

    def __exit__(self, *_error: object) -> None:
        """Let them go."""
        while self._locks:
            drop_lock(*self._locks.pop())
