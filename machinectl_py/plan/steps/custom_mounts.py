"""The mounts that the user asks for, after the pivot at their places inside.

Every target is resolved by the kernel within the machine's root, and no link of /proc is followed
on the way, since the init wrapper holds descriptors of the host's mounts.
"""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.mount_options import split_options
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_INACCESSIBLE = "/run/host/inaccessible"
_NODES = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "reg",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "sock",
    stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk",
}


def slot_of(target: str) -> str:
    """Return the slot of the detached mount that will be at `target`."""
    return f"mount:{target if target.strip('/') else '/'}"


class CloneBind(Step):
    """Take a detached copy of what is mounted at a path of the host."""

    name = "clone-bind"
    man = "open_tree(2)"
    because = "before the pivot: afterwards no path of the host leads anywhere"

    source: str  # "+/path": in the root as it stands
    target: str
    recursive: bool = True
    root: str = ""

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {self.source}" + ("" if self.recursive else ", it alone")

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot, named by the target."""
        return (slot_of(self.target),)

    def apply(self, context: Context) -> None:
        """Clone it; slave, so that later mounts on the host are seen, as with a bind mount."""
        if self.source.startswith("+"):
            place = open_in_root(self.root, self.source.removeprefix("+"), os.O_PATH)
            tree = kernel_mount.open_tree(f"/proc/self/fd/{place}", recursive=self.recursive)
            os.close(place)
        else:
            tree = kernel_mount.open_tree(self.source, recursive=self.recursive)
        context.give(slot_of(self.target), tree)


class AttachMount(Step):
    """Put a detached mount at its place inside."""

    name = "attach-mount"
    man = "move_mount(2)"
    because = "in the order of the targets: what is mounted on a parent would hide it"

    source: str  # in words
    target: str
    read_only: bool = False

    def label(self) -> str:
        """Return the step's own name."""
        return f"bind {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"mount {self.source} on {self.target}" + (" read-only" if self.read_only else "")

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --rbind{' -o ro' if self.read_only else ''} {self.source} {self.target}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (slot_of(self.target),)

    def apply(self, context: Context) -> None:
        """Make the target if it is missing, and attach."""
        attach(context.number(slot_of(self.target)), self.target, read_only=self.read_only)


class BindInside(Step):
    """Show a path of the machine at another place in it too."""

    name = "bind-inside"
    man = "open_tree(2)"
    because = "after the pivot and in order: its source may be a mount that was made before"

    source: str  # inside
    target: str
    recursive: bool = True
    read_only: bool = False
    optional: bool = False

    def label(self) -> str:
        """Return the step's own name."""
        return f"bind {self.target}"

    def describe(self) -> str:
        """Return the act."""
        mode = " read-only" if self.read_only else ""
        return f"bind {self.source} of the machine on {self.target}{mode}"

    def command(self) -> str:
        """Return the shell's way."""
        mode = f"--{'r' if self.recursive else ''}bind{' -o ro' if self.read_only else ''}"
        return f"mount {mode} {self.source} {self.target}"

    def apply(self, context: Context) -> None:
        """Clone the source and attach it."""
        try:
            place = _open(self.source)
        except FileNotFoundError:
            if self.optional:
                return
            raise
        try:
            tree = kernel_mount.open_tree(f"/proc/self/fd/{place}", recursive=self.recursive)
        finally:
            os.close(place)
        attach(tree, self.target, read_only=self.read_only)


class MountTmpfs(Step):
    """Mount a tmpfs of the machine's own."""

    name = "mount-tmpfs"
    man = "tmpfs(5)"
    because = "in the order of the targets: what is mounted on a parent would hide it"

    target: str
    options: str

    def label(self) -> str:
        """Return the step's own name."""
        return f"mount {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"mount tmpfs on {self.target} {self._words()}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount -t tmpfs -o {self._words()} tmpfs {self.target}"

    def _words(self) -> str:
        flags, data = self._split()
        return ",".join((*kernel_mount.flag_names(flags), *filter(None, [data])))

    def _split(self) -> tuple[int, str]:
        return split_options(self.options, const.MS_NODEV | const.MS_STRICTATIME)

    def apply(self, context: Context) -> None:
        """Make the target if it is missing, and mount."""
        flags, data = self._split()
        place = _make(self.target, directory=True)
        try:
            kernel_mount.mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", flags, data)
        except OSError as error:  # the user knows it by its name
            raise OSError(
                error.errno, f"mount: {os.strerror(error.errno or 0)}", self.target
            ) from error
        finally:
            os.close(place)


class HideTarget(Step):
    """Cover a path with a node of its kind that nobody can enter or read."""

    name = "hide"
    man = "mount(2) MS_BIND"
    because = "in the order of the targets: what is mounted on a parent would hide it"

    target: str

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"bind the inaccessible node of its kind on {self.target}, read-only"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --bind -o ro {_INACCESSIBLE}/… {self.target}"

    def apply(self, context: Context) -> None:
        """Bind it; a device's node is a socket where those could not be made."""
        place = _open(self.target)
        try:
            kind = _NODES[stat.S_IFMT(os.fstat(place).st_mode)]
            if not os.path.lexists(f"{_INACCESSIBLE}/{kind}"):
                kind = "sock"
            tree = kernel_mount.open_tree(f"{_INACCESSIBLE}/{kind}", recursive=False)
            try:
                kernel_mount.set_attributes(tree, const.MOUNT_ATTR_RDONLY)
                kernel_mount.move_mount(tree, place)
            finally:
                os.close(tree)
        finally:
            os.close(place)


def attach(tree: int, target: str, *, read_only: bool) -> None:
    """Attach a detached mount at a path of the machine, made where it is missing; close it.

    Raises:
        OSError: with errno and the target; EISDIR or ENOTDIR where only one is a directory.
    """
    try:
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        if read_only:
            kernel_mount.set_attributes(tree, const.MOUNT_ATTR_RDONLY)
        place = _make(target, directory=directory)
        try:
            if not directory and stat.S_ISDIR(os.fstat(place).st_mode):
                raise OSError(errno.EISDIR, "a file cannot be mounted on a directory", target)
            kernel_mount.move_mount(tree, place)
        finally:
            os.close(place)
    finally:
        os.close(tree)


def _make(target: str, *, directory: bool) -> int:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return make_in_root(root, target, directory=directory, follow=True)
    finally:
        os.close(root)


def _open(path: str) -> int:
    return open_in_root("/", path, os.O_PATH)
