"""Overlays of directories: their layers on the host, and the detached mount; overlayfs."""

from __future__ import annotations

import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.filesystem import make_filesystem
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.custom_mounts import slot_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


def beside(path: str, token: str) -> str:
    """Return a hidden name in the same directory, as systemd-nspawn's of the like."""
    directory, _, name = path.rstrip("/").rpartition("/")
    return f"{directory}/.#{name}{token}"


def by_name(path: str) -> str:
    """Return how fsconfig(2) is told the path of a layer, or "" if it cannot be.

    Overlayfs unescapes colons and backslashes, but commas cannot be told before Linux 6.5.
    """
    return "" if "," in path else path.replace("\\", "\\\\").replace(":", "\\:")


class MakeTemporaries(Step):
    """Make directories for the mounts without a source."""

    name = "make-temporaries"
    place = "launcher"
    man = "mkdir(2)"
    because = "once for all boots of the machine: they go with it"
    lifetime = "host"

    directory: str
    entries: tuple[str, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"make the directories {self.directory}/{{{','.join(self.entries)}}}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mkdir -m 700 {self.directory}; …"

    def apply(self, context: Context) -> None:
        """Make them; a user of the host may not enter, who could execute setuid files there."""
        os.mkdir(self.directory, 0o700)
        for entry in self.entries:
            os.mkdir(f"{self.directory}/{entry}", 0o755)

    def undo(self, context: Context) -> None:
        """Remove them with all that the machine wrote."""
        remove_tree(self.directory)


class MakeWorkDirectories(Step):
    """Make what overlays need beside their upper layers, and these where they are missing."""

    name = "make-work-directories"
    place = "launcher"
    man = "mkdir(2)"
    because = "overlayfs wants an empty directory on the file system of the upper layer"
    lifetime = "host"

    root: str
    uppers: tuple[str, ...]  # of the host; "+/path" in the root
    token: str

    def describe(self) -> str:
        """Return the act."""
        return f"make {', '.join(beside(upper, self.token) for upper in self.uppers)}"

    def command(self) -> str:
        """Return the shell's way."""
        return "mkdir -m 700 …"

    def apply(self, context: Context) -> None:
        """Make them, resolved in the root where they are the machine's."""
        for upper in self.uppers:
            root = os.open(self.root if upper.startswith("+") else "/", os.O_PATH | os.O_CLOEXEC)
            try:
                path = upper.removeprefix("+")
                os.close(make_in_root(root, path, directory=True))
                work = beside(path, self.token)
                os.close(make_in_root(root, work, directory=True, mode=0o700))
            finally:
                os.close(root)

    def undo(self, context: Context) -> None:
        """Remove the work directories; the upper layers are the user's."""
        for upper in self.uppers:
            root = self.root if upper.startswith("+") else "/"
            directory, _, name = beside(upper.removeprefix("+"), self.token).rpartition("/")
            try:
                parent = open_in_root(root, directory or "/", os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            try:
                remove_tree(name, parent)
            finally:
                os.close(parent)


class MakeOverlay(Step):
    """Make an overlay of directories, as a detached mount."""

    name = "make-overlay"
    man = "fsconfig(2)"
    because = "before the pivot: its layers are the host's, or of the root as it stands"

    target: str
    root: str
    lower: tuple[str, ...]  # the lowest first; "+/path" in the root
    upper: str = ""
    work: str = ""
    read_only: bool = False

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"fsmount overlay {','.join(self._words())}"

    def _words(self) -> list[str]:
        upper = [f"upperdir={self.upper}", f"workdir={self.work}"] if self.upper else []
        return [f"lowerdir={':'.join(reversed(self.lower))}", *upper]

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount -t overlay -o {','.join(self._words())} overlay {self.target}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot, named by the target."""
        return (slot_of(self.target),)

    def apply(self, context: Context) -> None:
        """Make it."""
        held: list[int] = []
        try:
            lower = ":".join(self._layer(path, held) for path in reversed(self.lower))
            options = [("source", "overlay"), ("lowerdir", lower)]
            if self.upper:
                options.append(("upperdir", self._layer(self.upper, held)))
                options.append(("workdir", self._layer(self.work, held)))
            attributes = const.MOUNT_ATTR_RDONLY if self.read_only else 0
            tree = make_filesystem("overlay", tuple(options), attributes)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it says "too many symbolic links"
                raise OSError(errno.ELOOP, "a layer lies in another", self.target) from error
            raise
        finally:
            for fd in held:
                os.close(fd)
        context.give(slot_of(self.target), tree)

    def _layer(self, path: str, held: list[int]) -> str:
        """Return how the kernel is told a layer; opened are those that it could not be by name."""
        inside = path.startswith("+")
        if not inside and (name := by_name(path)):
            return name
        root = self.root if inside else "/"
        held.append(open_in_root(root, path.removeprefix("+"), os.O_PATH | os.O_DIRECTORY))
        return f"/proc/self/fd/{held[-1]}"
