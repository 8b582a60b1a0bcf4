"""What is taken on the host before any process is born: locks and the state directory."""

from __future__ import annotations

import os
import time

from machinectl_py.errors import ConflictError
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.layout import LOCK_DIR, ROOT_LOCK_DIR, lock_path, machine_dir
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_POLL = 0.005  # seconds


class LockMachine(Step):
    """Take the machine's lock; it is held as long as a supervisor of it lives."""

    name = "lock-machine"
    place = "launcher"
    man = "fcntl_locking(2)"
    because = "first of all: of two boots at once, one learns here that it is the second"
    lifetime = "process"
    gives = ("lock",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"lock {lock_path(self.machine)}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"flock --nonblock {lock_path(self.machine)} …"

    def apply(self, context: Context) -> None:
        """Take the lock or say that the machine runs."""
        os.makedirs(LOCK_DIR, mode=0o755, exist_ok=True)
        path = lock_path(self.machine)
        while (fd := take_lock(path)) is None:
            if is_locked(path):
                raise ConflictError(
                    f"Machine '{self.machine}' is running already",
                    f"'pymachine status {self.machine}' shows it.",
                )
            time.sleep(_POLL)  # another verb removes what a killed supervisor left
        context.give("lock", fd)


class MakeStateDirectory(Step):
    """Make the directory that the other verbs read; what a killed supervisor left goes first."""

    name = "make-state-directory"
    place = "launcher"
    man = "mkdir(2)"
    because = "the journal lives in it, and every act on the host from here on is written there"
    lifetime = "process"
    takes = ("lock",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"make the directory {machine_dir(self.machine)}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mkdir -p {machine_dir(self.machine)}"

    def apply(self, context: Context) -> None:
        """Make it; the runtime has removed a leftover before it began."""
        os.makedirs(os.path.dirname(machine_dir(self.machine)), mode=0o755, exist_ok=True)
        os.mkdir(machine_dir(self.machine), 0o755)


class LockRoot(Step):
    """Take systemd-nspawn's lock of the root directory, so that no root is booted twice."""

    name = "lock-root"
    place = "launcher"
    man = "fcntl_locking(2)"
    because = "two inits on one root would spoil its files"
    lifetime = "host"
    takes = ("lock",)
    gives = ("root-lock",)

    root: str
    device: int
    inode: int
    shared: bool = False  # with others who do not write to it

    def describe(self) -> str:
        """Return the act."""
        return f"lock {self.root} by {self._path()}" + (", shared" if self.shared else "")

    def _path(self) -> str:
        return f"{ROOT_LOCK_DIR}/inode-{self.device}:{self.inode}"

    def apply(self, context: Context) -> None:
        """Take the lock or say that the root is in use."""
        os.makedirs(ROOT_LOCK_DIR, mode=0o700, exist_ok=True)
        fd = take_lock(self._path(), shared=self.shared)
        if fd is None:
            raise ConflictError(f"The root {self.root} is in use by another machine")
        context.give("root-lock", fd)

    def undo(self, context: Context) -> None:
        """Remove the lock's file, unless another machine holds it by now."""
        if "root-lock" in context.slots:
            drop_lock(self._path(), context.number("root-lock"))
        elif not is_locked(self._path()):
            try:
                os.unlink(self._path())
            except FileNotFoundError:
                pass
