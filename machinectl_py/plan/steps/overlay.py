"""Overlays of directories: their layers on the host, and the detached mount; overlayfs."""

from __future__ import annotations

import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.file_ids import FileIds
from machinectl_py.kernel.filesystem import make_filesystem
from machinectl_py.kernel.idmap import map_tree
from machinectl_py.kernel.namespaces import in_user_namespace
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.plan.bind_maps import bind_maps
from machinectl_py.plan.step import MovableStep, Step
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


def unprivileged() -> tuple[tuple[str, str], ...]:
    """Return the options of an overlay that root of a user namespace may write to.

    It cannot set the attributes of files by which overlayfs tells what was removed or moved.
    """
    return (("userxattr", ""),) if in_user_namespace() else ()


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


class MakeOverlay(MovableStep):
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
    owned: str = ""  # a layer of the host that is given to root of the machine: it is new
    mapped: int = 0  # ids of the machine that the host's in its layers are shown as; 0 maps none
    scratch: str = ""  # a directory of the host to mount mapped layers on

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def describe(self) -> str:
        """Return the act."""
        mapped = ", the host's ids mapped" if self.mapped else ""
        return f"fsmount overlay {','.join(self._words())}{mapped}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the range that files in the overlay are to belong to."""
        return ("id-base",) if self.place == "supervisor" else ()

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
        base = context.number("id-base") if self.needed_slots() else 0
        if self.owned:
            os.chown(self.owned, base, base)
        held: list[int] = []
        try:
            lower = ":".join(self._layer(path, base, held) for path in reversed(self.lower))
            options = [("source", "overlay"), ("lowerdir", lower), *unprivileged()]
            if self.upper:
                upper, work = self._upper(base, held)
                options += [("upperdir", upper), ("workdir", work)]
            attributes = const.MOUNT_ATTR_RDONLY if self.read_only else 0
            with FileIds(base):
                tree = make_filesystem("overlay", tuple(options), attributes)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it says "too many symbolic links"
                raise OSError(errno.ELOOP, "a layer lies in another", self.target) from error
            raise
        finally:
            for fd in held:
                os.close(fd)
        context.give(slot_of(self.target), tree)

    def _upper(self, base: int, held: list[int]) -> tuple[str, str]:
        """Return how the kernel is told the upper layer and the work directory, on one mount."""
        if not self._is_mapped(self.upper):
            return self._plain(self.upper, held), self._plain(self.work, held)
        directory, _, name = self.upper.rpartition("/")
        tree = self._map(directory or "/", base, held)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        held.append(os.open(name, flags, dir_fd=tree))
        held.append(os.open(os.path.basename(self.work), flags, dir_fd=tree))
        if not os.path.samestat(os.fstat(held[-2]), os.stat(self.upper)):
            raise OSError(errno.EINVAL, "an upper layer cannot be a mount point", self.upper)
        return f"/proc/self/fd/{held[-2]}", f"/proc/self/fd/{held[-1]}"

    def _is_mapped(self, path: str) -> bool:
        return bool(self.mapped) and not path.startswith("+") and path != self.owned

    def _map(self, path: str, base: int, held: list[int]) -> int:
        """Return a descriptor of a directory through which the host's ids are the machine's."""
        tree = kernel_mount.open_tree(path, recursive=False)
        held.append(tree)
        if maps := bind_maps("idmap", base, self.mapped):
            map_tree(tree, maps)
        # Before Linux 6.15 a layer must be in our mount namespace; one may cover the other there.
        place = os.open(self.scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kernel_mount.move_mount(tree, place)
        finally:
            os.close(place)
        return tree

    def _layer(self, path: str, base: int, held: list[int]) -> str:
        """Return how the kernel is told a layer; opened is what it could not be told by name."""
        if self._is_mapped(path):
            return f"/proc/self/fd/{self._map(path, base, held)}"
        return self._plain(path, held)

    def _plain(self, path: str, held: list[int]) -> str:
        inside = path.startswith("+")
        if not inside and (name := by_name(path)):
            return name
        root = self.root if inside else "/"
        held.append(open_in_root(root, path.removeprefix("+"), os.O_PATH | os.O_DIRECTORY))
        return f"/proc/self/fd/{held[-1]}"
