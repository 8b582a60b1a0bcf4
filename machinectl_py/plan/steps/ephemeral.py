"""The root of an ephemeral machine: a snapshot, or a layer to write to, that goes with it."""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.compose_root import make_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class MakeLayer(Step):
    """Make the directories that take what an ephemeral machine writes."""

    name = "make-layer"
    place = "launcher"
    man = "mkdir(2)"
    because = "once for all boots of the machine: a reboot finds what was written"
    lifetime = "host"

    root: str
    layer: str

    def describe(self) -> str:
        """Return the act."""
        return f"make {self.layer}/{{upper,work}}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mkdir -m 700 {self.layer} && mkdir {self.layer}/upper {self.layer}/work"

    def apply(self, context: Context) -> None:
        """Make them, where no user of the host comes by."""
        os.mkdir(self.layer, 0o700)
        layer, root = os.open(self.layer, _DIRECTORY), os.open(self.root, _DIRECTORY)
        try:
            make_layer(layer, root)
        finally:
            os.close(layer)
            os.close(root)

    def undo(self, context: Context) -> None:
        """Remove them with all that the machine wrote."""
        remove_tree(self.layer)


class OwnMachine(Step):
    """Note that the machine was made for this start alone."""

    name = "own-machine"
    place = "launcher"
    man = "unlink(2)"
    because = "whoever undoes it finds what has to go: the machine's record and its layer"
    lifetime = "host"

    record: str
    layer: str

    def describe(self) -> str:
        """Return the act."""
        return f"own {self.record} and {self.layer}, which go with the machine"

    def apply(self, context: Context) -> None:
        """Do nothing: the verb has made them."""

    def undo(self, context: Context) -> None:
        """Remove the record, which makes the machine no more, then what it wrote."""
        from machinectl_py.kernel import btrfs
        from machinectl_py.kernel.statfs import is_subvolume

        try:
            os.unlink(self.record)
        except FileNotFoundError:
            pass
        tree = f"{self.layer}/tree"
        if os.path.isdir(tree) and is_subvolume(tree):
            btrfs.delete(tree)
        remove_tree(self.layer)


class LockSnapshot(Step):
    """Take the lock of a snapshot, so that others see that it is in use."""

    name = "lock-snapshot"
    place = "launcher"
    man = "fcntl_locking(2)"
    because = "before it is there, as what removes unlocked leftovers must not see it without"
    lifetime = "host"
    takes = ("lock",)
    gives = ("root-lock",)

    snapshot: str

    def describe(self) -> str:
        """Return the act."""
        return f"lock {self._path()}"

    def _path(self) -> str:
        """Return systemd's lock file of an image."""
        directory, _, name = self.snapshot.rpartition("/")
        return f"{directory}/.#{name}.lck"

    def apply(self, context: Context) -> None:
        """Take it."""
        fd = take_lock(self._path())
        if fd is None:
            raise ConflictError(f"{self.snapshot} is in use by another machine")
        context.give("root-lock", fd)

    def undo(self, context: Context) -> None:
        """Remove the lock's file, unless another holds it by now."""
        if "root-lock" in context.slots:
            drop_lock(self._path(), context.number("root-lock"))
        elif not is_locked(self._path()):
            try:
                os.unlink(self._path())
            except FileNotFoundError:
                pass


class SnapshotRoot(Step):
    """Take a snapshot of the root, which is a subvolume of btrfs."""

    name = "snapshot-root"
    place = "launcher"
    man = "btrfs-subvolume(8)"
    because = "once for all boots of the machine: a reboot finds what was written"
    lifetime = "host"

    root: str
    snapshot: str

    def describe(self) -> str:
        """Return the act."""
        return f"snapshot {self.root} as {self.snapshot}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"btrfs subvolume snapshot {self.root} {self.snapshot}"

    def apply(self, context: Context) -> None:
        """Take it, with the subvolumes below."""
        from machinectl_py.kernel import btrfs

        btrfs.snapshot(self.root, self.snapshot)

    def undo(self, context: Context) -> None:
        """Delete it, with the subvolumes that the machine made in it."""
        from machinectl_py.kernel import btrfs

        btrfs.delete(self.snapshot)
