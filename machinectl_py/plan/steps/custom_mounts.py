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
from machinectl_py.kernel.idmap import IdMaps, map_tree
from machinectl_py.kernel.mount_options import split_options
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.plan.bind_maps import bind_maps
from machinectl_py.plan.step import MovableStep, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import BindIdmap
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
    place = "supervisor"
    man = "open_tree(2)"
    because = "by root of the host, who may open any path and map ids; PID 1 inherits the mount"

    source: str
    target: str
    recursive: bool = True
    temporary: bool = False  # a directory of the machine's own
    idmap: BindIdmap = "noidmap"
    count: int = 0  # ids of the machine, with `idmap`
    root: str = (
        ""  # where the target is looked up, with `idmap`: a directory, or the slot of a mount
    )
    inside: str = ""  # the target below that

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def describe(self) -> str:
        """Return the act."""
        alone = "" if self.recursive else ", it alone"
        mapped = "" if self.idmap == "noidmap" else f", {self.idmap}"
        return f"open_tree {self.source}{alone}{mapped}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount with the target."""
        return () if self.root.startswith("/") or not self.root else (self.root,)

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot, named by the target."""
        return (slot_of(self.target),)

    def apply(self, context: Context) -> None:
        """Clone it; slave, so that later mounts on the host are seen, as with a bind mount."""
        # 0 where there is no user namespace.
        base = context.number("id-base") if "id-base" in context.slots else 0
        if self.temporary and base:
            os.chown(self.source, base, base)
        tree = kernel_mount.open_slave_tree(self.source, recursive=self.recursive)
        context.give(slot_of(self.target), tree)
        maps = bind_maps(
            self.idmap, base, self.count, _owner(tree), self._target_owner(context, base)
        )
        if maps:
            self._map(tree, maps)

    def _map(self, tree: int, maps: IdMaps) -> None:
        try:
            map_tree(tree, maps)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise OSError(errno.EINVAL, "its file system cannot map ids", self.source) from error

    def _target_owner(self, context: Context, base: int) -> tuple[int, int]:
        """Return who owns the target, by ids of the machine; root, if it is not there yet."""
        if self.idmap != "owneridmap":
            return 0, 0
        root = self.root
        if self.needed_slots():
            root = f"/proc/self/fd/{context.number(self.root)}"
        try:
            place = open_in_root(root, self.inside, os.O_PATH)
        except FileNotFoundError:
            return 0, 0
        uid, gid = _owner(place)
        os.close(place)
        return uid - base if uid >= base else uid, gid - base if gid >= base else gid


def _owner(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_uid, status.st_gid


class CloneInside(MovableStep):
    """Take a detached copy of a path of the root, to be the root itself."""

    name = "clone-inside"
    man = "open_tree(2)"
    because = "before the root is covered by it"

    source: str  # inside
    root: str
    recursive: bool = True

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {self.source} in {self.root}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot of a mount on the root."""
        return (slot_of("/"),)

    def apply(self, context: Context) -> None:
        """Clone it, resolved in the root."""
        place = open_in_root(self.root, self.source, os.O_PATH | os.O_DIRECTORY)
        tree = kernel_mount.open_tree(f"/proc/self/fd/{place}", recursive=self.recursive)
        os.close(place)
        context.give(slot_of("/"), tree)


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
