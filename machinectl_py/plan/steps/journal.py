"""The journal of the machine where the host's journalctl(1) looks; systemd-nspawn(1).

With "host" the files lie on the host and are bound into the machine; with "guest" they lie in
the machine, and the host has a link to them. What is made on the host for it stays.
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.idmap import map_tree
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.plan.step import Step
from machinectl_py.plan.users import machine_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import JournalLink
    from machinectl_py.plan.context import Context

_JOURNALS = "/var/log/journal"


class _JournalStep(Step):
    """What the steps of linking have in common."""

    machine_id: str
    lenient: bool  # what cannot be linked is passed over

    def _path(self) -> str:
        return f"{_JOURNALS}/{self.machine_id}"

    def _refuse(self, text: str) -> str:
        """Return "", which links nothing, if that is good enough.

        Raises:
            ConflictError: it is not.
        """
        if self.lenient:
            return ""
        raise ConflictError(text, "--link-journal=no links no journals.")


class PrepareJournal(_JournalStep):
    """Find or make the place of the machine's journal on the host, or the link to it."""

    name = "prepare-journal"
    place = "supervisor"
    man = "systemd-journald.service(8)"
    because = "before the birth: the host's /var/log is not the machine's to change"
    lifetime = "process"
    gives = ("journal",)

    root: str
    mode: JournalLink

    def describe(self) -> str:
        """Return the act."""
        if self.mode == "guest":
            return f"link {self._path()} to that in {self.root}"
        if self.mode == "host":
            return f"make the directory {self._path()}"
        return f"look for {self._path()}"

    def command(self) -> str:
        """Return the shell's way."""
        if self.mode == "guest":
            return f"ln -sfT {self.root}{self._path()} {self._path()}"
        return f"mkdir -p {self._path()}" if self.mode == "host" else ""

    def apply(self, context: Context) -> None:
        """Give "bind", "guest", or "" if nothing is linked."""
        context.give("journal", self._prepare())

    def _prepare(self) -> str:
        path, inside = self._path(), f"{self.root}{self._path()}"
        if _is_mount_point(path):
            return self._refuse(f"{path} is a mount point, which cannot be used for a journal")
        if os.path.islink(path):
            if self.mode in ("guest", "auto") and os.readlink(path) == inside:
                return "guest"
            os.unlink(path)
        elif self.mode == "guest" and os.path.lexists(path):
            os.rmdir(path)
        if self.mode == "guest":
            return self._link(inside, path)
        if self.mode == "host":
            return self._make(path)
        return "bind" if os.path.exists(path) else ""

    def _link(self, inside: str, path: str) -> str:
        try:
            os.symlink(inside, path)
        except OSError as error:
            return self._refuse(f"{path} cannot be linked to {inside}: {error.strerror}")
        return "guest"

    def _make(self, path: str) -> str:
        """Make the last directory alone: a host that keeps no journal is not to begin now."""
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            return self._refuse(f"{path} cannot be made on this host: {error.strerror}")
        return "bind"


class CloneJournal(_JournalStep):
    """Take a detached copy of the mount of the journal's directory, if it is to be bound."""

    name = "clone-journal"
    place = "supervisor"
    man = "open_tree(2)"
    because = "before the birth: inside, no path of the host leads anywhere"
    takes = ("journal",)
    gives = ("journal-tree",)

    ids: int = 0  # of the machine's user namespace, to which the directory's are mapped; or 0

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots, with a user namespace that of its range."""
        return (*self.takes, "id-base") if self.ids else self.takes

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {self._path()}" + (", ids mapped from 0" if self.ids else "")

    def apply(self, context: Context) -> None:
        """Clone it; -1 if it is not to be bound."""
        tree = -1
        if context.text("journal") == "bind":
            tree = self._clone(context)
        context.give("journal-tree", tree)

    def _clone(self, context: Context) -> int:
        tree = kernel_mount.open_slave_tree(self._path())
        if not self.ids:
            return tree
        try:
            map_tree(tree, machine_maps(context.number("id-base"), self.ids))
        except OSError as error:
            os.close(tree)
            self._refuse(f"The ids of {self._path()} cannot be mapped: {error.strerror}")
            return -1
        return tree


class AttachJournal(_JournalStep):
    """Make the directory of the journal inside, and mount the host's there if it is bound."""

    name = "attach-journal"
    man = "move_mount(2)"
    because = "after the custom mounts, which may have put another /var there"
    takes = ("journal", "journal-tree")

    def describe(self) -> str:
        """Return the act."""
        return f"make {self._path()}, bind the host's there"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --bind {self._path()} {self._path()}"

    def apply(self, context: Context) -> None:
        """Do so, unless there is nothing to link."""
        tree = context.number("journal-tree")
        if not context.text("journal"):
            return
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            os.close(make_in_root(root, _JOURNALS, directory=True))
            if _is_mount_point(self._path()):
                self._refuse(f"{self._path()} is a mount point inside already")
            elif tree >= 0:
                self._bind(context, root, tree)
            else:
                os.close(make_in_root(root, self._path(), directory=True))
        except OSError as error:
            text = f"The journal cannot be linked inside: {error.strerror}: {self._path()}"
            self._refuse(text)
        finally:
            os.close(root)
            if tree >= 0:
                os.close(tree)

    def _bind(self, context: Context, root: int, tree: int) -> None:
        target = make_in_root(root, self._path(), directory=True)
        listed = open_in_root(root, self._path(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.listdir(listed):
                context.warn(f"{self._path()} in the machine is not empty; it is hidden now")
            kernel_mount.move_mount(tree, target)
        finally:
            os.close(listed)
            os.close(target)


def _is_mount_point(path: str) -> bool:
    """Say whether something is mounted there, a directory of the same file system too."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ", 5)[4] == path for line in file)
