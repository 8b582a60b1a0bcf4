"""The file systems of a disk image: checked, mounted detached, and attached inside."""

from __future__ import annotations

import os

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import filesystem, loop
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

ROOT_TREE = "mount:root"
_ENODEV, _EUCLEAN = 19, 117
_PATIENCE = 5.0  # seconds
_UNCORRECTED = 2 | 4  # of fsck(8): the system should be rebooted, errors left


def mount_slot(designator: str) -> str:
    """Return the slot of a partition's detached mount."""
    return f"mount:{designator}"


class CheckFileSystem(Step):
    """Have fsck(8) repair what an unclean end left."""

    name = "check-file-system"
    place = "supervisor"
    man = "fsck(8)"
    because = "before it is mounted for writing"
    lifetime = "process"

    designator: str
    source: str  # slot of the device
    program: str

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.designator}"

    def describe(self) -> str:
        """Return the act."""
        return f"check the file system of partition {self.designator}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"{self.program} -a DEVICE"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the device."""
        return (self.source,)

    def apply(self, context: Context) -> None:
        """Run it; errors that it has corrected are none, and what it cannot do is left to mount."""
        path = loop.device_path(context.number(self.source))
        loop.wait_unclaimed(path, timeout=_PATIENCE)  # by the boot before
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
        words = [self.program, "-a", path]
        pid = os.posix_spawn(self.program, words, dict(os.environ), file_actions=actions)
        os.close(null)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status > 0 and status & _UNCORRECTED:
            raise OSError(_EUCLEAN, f"{self.program} found errors that it cannot correct", path)


class MountPartition(Step):
    """Mount a file system detached: in no mount namespace, so that the host never sees it."""

    name = "mount-partition"
    place = "supervisor"
    man = "fsmount(2)"
    because = "before the birth: the init wrapper inherits the mount, and may lack the privilege"

    slot: str  # given: the mount's descriptor
    fstype: str
    source: str  # slot of the block device; "" for a tmpfs
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0  # MOUNT_ATTR_
    growfs: bool = False
    optional: bool = False  # a boot partition, which no machine needs

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.slot.rpartition(':')[2]}"

    def describe(self) -> str:
        """Return the act."""
        words = [f"{key}={value}" if value else key for key, value in self.options]
        return f"fsmount {self.fstype} detached {','.join(words)}".rstrip()

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the device."""
        return (self.source,) if self.source else ()

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (self.slot,)

    def apply(self, context: Context) -> None:
        """Mount it."""
        options = self.options
        if self.source:
            device = loop.device_path(context.number(self.source))
            options = (("source", device), *options)
        try:
            tree = filesystem.make_filesystem(self.fstype, options, self.attributes)
        except OSError as error:
            if error.errno != _ENODEV:
                raise
            if not self.optional:
                raise UnsupportedError(f"This kernel has no file system '{self.fstype}'") from error
            context.warn(f"{self.label()}: this kernel has no file system '{self.fstype}'")
            tree = -1
        context.give(self.slot, tree)
        if self.growfs:
            self._grow(context, tree)

    def _grow(self, context: Context, tree: int) -> None:
        from machinectl_py.kernel.growfs import grow_filesystem

        try:
            grow_filesystem(tree, self.fstype, context.number(self.source))
        except OSError as error:  # it is whole, if small
            context.warn(f"{self.label()}: its file system stays as it is: {error.strerror}")


class ReleaseMounts(Step):
    """Let go of the detached mounts that the machine has inherited."""

    name = "release-mounts"
    place = "supervisor"
    man = "close(2)"
    because = "after the birth: the file systems shall end with the machine, not with us"

    mounts: tuple[str, ...]  # slots

    def describe(self) -> str:
        """Return the act."""
        return f"close the {len(self.mounts)} detached mounts"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots of the mounts, and of who has inherited them."""
        return (*self.mounts, "leader")

    def apply(self, context: Context) -> None:
        """Close them."""
        context.close_mounts()


class AttachRoot(Step):
    """Attach the detached mount that shall be the root, over a directory of the host."""

    name = "attach-root"
    man = "move_mount(2)"
    because = "pivot_root wants a mount point; in our own mount namespace, so the host sees none"
    takes = (ROOT_TREE,)

    target: str

    def describe(self) -> str:
        """Return the act."""
        return f"attach the root on {self.target}"

    def apply(self, context: Context) -> None:
        """Attach it."""
        target = os.open(self.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        kernel_mount.move_mount(context.number(ROOT_TREE), target)
        for fd in (context.number(ROOT_TREE), target):
            os.close(fd)


class AttachPartition(Step):
    """Attach a partition at its place below the root."""

    name = "attach-partition"
    man = "move_mount(2)"
    because = "after the pivot: no link inside leads out"

    slot: str
    targets: tuple[str, ...]  # the first that fits
    empty: bool = False  # it fits if it is empty or missing; a lone one fits always

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.slot.rpartition(':')[2]}"

    def describe(self) -> str:
        """Return the act."""
        return f"attach the partition on {' or '.join(self.targets)}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (self.slot,)

    def apply(self, context: Context) -> None:
        """Attach it; a boot partition without a free place stays away, as with systemd-nspawn."""
        tree = context.number(self.slot)
        if tree < 0:
            return
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        for target in self.targets:
            if not self.empty or _is_free(root, target, missing=target == self.targets[-1]):
                attach_below(root, tree, target)
                break
        for fd in (tree, root):
            os.close(fd)


def attach_below(root: int, tree: int, target: str) -> None:
    """Attach a detached mount at a directory in a root, made if it is missing.

    Raises:
        OSError: the directory is missing and cannot be made.
    """
    place = make_in_root(root, target, directory=True)
    kernel_mount.move_mount(tree, place)
    os.close(place)


def _is_free(root: int, path: str, *, missing: bool) -> bool:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return missing
    except OSError:  # no directory
        return False
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)


class FillEmptyRoot(Step):
    """Make the directories and links of a root that has nothing but /usr."""

    name = "fill-empty-root"
    man = "hier(7)"
    because = "after /usr, which the links lead into, and before all that is mounted on them"

    def describe(self) -> str:
        """Return the act."""
        return "make the directories of / and the links into /usr"

    def apply(self, context: Context) -> None:
        """Make what is missing."""
        fill_empty_root("/")


def fill_empty_root(root: str) -> None:
    """Make the top level of a file system tree around its /usr."""
    for name, mode in (("etc", 0o755), ("root", 0o700), ("var", 0o755), ("tmp", 0o1777)):
        _make_directory(f"{root}/{name}", mode)
    for name in ("proc", "sys", "dev", "run", "home", "srv"):
        _make_directory(f"{root}/{name}", 0o755)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.isdir(f"{root}/usr/{name}") and not os.path.lexists(f"{root}/{name}"):
            os.symlink(f"usr/{name}", f"{root}/{name}")


def _make_directory(path: str, mode: int) -> None:
    try:
        os.mkdir(path)
        os.chmod(path, mode)
    except FileExistsError:
        pass
