"""What becomes of the root before the pivot: volatile, ephemeral, another directory, covered.

Each step mounts over the path of the root in the namespace of the machine, where the pivot then
finds what is on top. Paths inside are resolved within the root.
"""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.filesystem import make_filesystem
from machinectl_py.kernel.mount_options import split_options
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.plan.step import MovableStep, Step
from machinectl_py.plan.steps.custom_mounts import slot_of
from machinectl_py.plan.steps.overlay import by_name, unprivileged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# systemd-nspawn's limits of a root in memory: a quarter of it, and a million files.
_MEMORY = (("source", "tmpfs"), ("mode", "0755"), ("size", "25%"), ("nr_inodes", "1m"))


class MakeVolatileRoot(MovableStep):
    """Cover the root with an empty one in memory, of which only /usr is the old, read-only."""

    name = "make-volatile-root"
    man = "tmpfs(5)"
    because = "before the pivot, which takes what is on top"

    root: str

    def describe(self) -> str:
        """Return the act."""
        return f"cover {self.root} with a tmpfs, bind its /usr there read-only"

    def command(self) -> str:
        """Return the shell's way."""
        return (
            f"mount -t tmpfs -o size=25% tmpfs NEW && mount --rbind -o ro {self.root}/usr NEW/usr"
        )

    def apply(self, context: Context) -> None:
        """Build it over the root."""
        below = os.open(self.root, _DIRECTORY)
        usr = open_in_root(below, "usr", os.O_PATH | os.O_DIRECTORY)
        tree = kernel_mount.open_tree(f"/proc/self/fd/{usr}")
        kernel_mount.set_attributes(tree, const.MOUNT_ATTR_RDONLY)
        memory = make_filesystem("tmpfs", _MEMORY, const.MOUNT_ATTR_STRICTATIME)
        os.mkdir("usr", 0o755, dir_fd=memory)
        if self.place == "supervisor":
            _give_away(context.number("id-base"), memory, "usr")
        kernel_mount.move_mount(memory, below)
        place = os.open("usr", _DIRECTORY, dir_fd=memory)
        kernel_mount.move_mount(tree, place)
        for fd in (below, usr, tree, memory, place):
            os.close(fd)


class OverlayRoot(MovableStep):
    """Cover the root with an overlay, so that all that is written goes to memory."""

    name = "overlay-root"
    man = "fsconfig(2)"
    because = "before the pivot, which takes what is on top"

    root: str
    scratch: str  # a directory of the host that is not needed while this is made
    nodev: bool = False  # as the file systems of an image: an overlay does not inherit it

    def describe(self) -> str:
        """Return the act."""
        return f"cover {self.root} with an overlay, written to memory"

    def command(self) -> str:
        """Return the shell's way."""
        layers = f"lowerdir={self.root},upperdir=…/upper,workdir=…/work"
        return f"mount -t tmpfs tmpfs … && mount -t overlay -o {layers} overlay {self.root}"

    def apply(self, context: Context) -> None:
        """Make it; the memory must be mounted somewhere until it has been taken up."""
        below, scratch = os.open(self.root, _DIRECTORY), os.open(self.scratch, _DIRECTORY)
        memory = make_filesystem("tmpfs", _MEMORY, const.MOUNT_ATTR_STRICTATIME)
        kernel_mount.move_mount(memory, scratch)
        make_layer(memory, below)
        upper = by_name(self.scratch) or f"/proc/self/fd/{memory}"
        options = (
            ("source", "overlay"),
            ("lowerdir", by_name(self.root) or f"/proc/self/fd/{below}"),
            ("upperdir", f"{upper}/upper"),
            ("workdir", f"{upper}/work"),
            *unprivileged(),
        )
        attributes = const.MOUNT_ATTR_NODEV if self.nodev else 0
        tree = make_filesystem("overlay", options, attributes)
        kernel_mount.move_mount(tree, below)
        kernel_mount.umount2(self.scratch, const.MNT_DETACH)
        for fd in (below, scratch, memory, tree):
            os.close(fd)


def _give_away(base: int, directory: int, name: str) -> None:
    """Give a directory and one in it to root of a machine."""
    for entry in (".", name):
        os.chown(entry, base, base, dir_fd=directory)


def make_layer(directory: int, like: int) -> None:
    """Make upper/, with the mode and owner that the root `like` has, and work/."""
    status = os.fstat(like)
    os.mkdir("work", 0o755, dir_fd=directory)
    os.mkdir("upper", 0o755, dir_fd=directory)
    os.chown("upper", status.st_uid, status.st_gid, dir_fd=directory)
    os.chmod("upper", status.st_mode & 0o7777, dir_fd=directory)


class EnterDirectory(MovableStep):
    """Make a directory of the root the root, and show the old one in it."""

    name = "enter-directory"
    man = "move_mount(2)"
    because = "before the pivot, which takes what is on top"

    root: str
    new: str  # inside
    old: str = ""  # inside `new`; "" shows the old root nowhere

    def describe(self) -> str:
        """Return the act."""
        shown = f", show it on {self.old}" if self.old else ""
        return f"cover {self.root} with {self.new} in it{shown}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --bind {self.root}{self.new} {self.root}"

    def apply(self, context: Context) -> None:
        """Mount it over the root; the old one, if wanted, with all that is mounted there."""
        below = os.open(self.root, _DIRECTORY)
        new = open_in_root(below, self.new, os.O_PATH | os.O_DIRECTORY)
        tree = kernel_mount.open_tree(f"/proc/self/fd/{new}", recursive=False)
        old = kernel_mount.open_tree(f"/proc/self/fd/{below}") if self.old else -1
        kernel_mount.move_mount(tree, below)
        if self.old:
            place = open_in_root(tree, self.old, os.O_PATH | os.O_DIRECTORY)
            kernel_mount.move_mount(old, place)
            os.close(place)
            os.close(old)
        for fd in (below, new, tree):
            os.close(fd)


class CoverRoot(MovableStep):
    """Cover the root with the mount that the user wants there."""

    name = "cover-root"
    man = "move_mount(2)"
    because = "before the pivot, which takes what is on top"

    root: str
    source: str  # in words; the mount is in the slot of "/"
    read_only: bool = False

    def describe(self) -> str:
        """Return the act."""
        return f"mount {self.source} on {self.root}" + (" read-only" if self.read_only else "")

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (slot_of("/"),)

    def apply(self, context: Context) -> None:
        """Attach it, apart from what happens to its source."""
        tree = context.take(slot_of("/"))
        attributes = const.MOUNT_ATTR_RDONLY if self.read_only else 0
        kernel_mount.set_attributes(tree, attributes, propagation=const.MS_PRIVATE)
        place = os.open(self.root, _DIRECTORY)
        kernel_mount.move_mount(tree, place)
        os.close(place)
        os.close(tree)


class CoverRootWithTmpfs(Step):
    """Cover the root with a tmpfs."""

    name = "cover-root-with-tmpfs"
    man = "tmpfs(5)"
    because = "before the pivot, which takes what is on top"

    root: str
    options: str

    def describe(self) -> str:
        """Return the act."""
        return f"mount tmpfs on {self.root} {self.options}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount -t tmpfs -o {self.options} tmpfs {self.root}"

    def apply(self, context: Context) -> None:
        """Mount it."""
        flags, data = split_options(self.options, const.MS_NODEV | const.MS_STRICTATIME)
        kernel_mount.mount("tmpfs", self.root, "tmpfs", flags, data)
