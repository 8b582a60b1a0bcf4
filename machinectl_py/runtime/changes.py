"""Who changes a machine that runs, ends it, or starts it again, waits for the others."""

from __future__ import annotations

import os

from machinectl_py.kernel.locks import drop_lock, is_locked, wait_lock
from machinectl_py.layout import LOCK_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from machinectl_py.runtime.state import MachineState


class Changes:
    """What a machine consists of, held by a lock: its spec, and its journal."""

    def __init__(self, name: str) -> None:
        """Take the machine's name."""
        self._path, self._name = _path(name), name

    def __enter__(self) -> Self:
        """Wait for it."""
        os.makedirs(LOCK_DIR, mode=0o755, exist_ok=True)
        self._lock = wait_lock(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        drop_lock(self._path, self._lock)

    def state(self) -> MachineState:
        """Return the state of the machine, which neither ends nor starts again meanwhile.

        Raises:
            NotFoundError: it does not run any more.
            ConflictError: it is being started, or on its way out.
        """
        from machinectl_py.errors import ConflictError
        from machinectl_py.runtime.state import require_running

        state = require_running(self._name)
        if state.phase != "running":
            raise ConflictError(f"Machine '{self._name}' is still being started")
        return state


def is_being_changed(name: str) -> bool:
    """Say whether somebody holds it, who may be ourselves."""
    return is_locked(_path(name))


def _path(name: str) -> str:
    return f"{LOCK_DIR}/.change-{name}"  # no machine is called so
