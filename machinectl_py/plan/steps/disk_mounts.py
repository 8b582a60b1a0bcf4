"""The file systems of a disk image: checked, mounted detached, and attached inside."""

from __future__ import annotations

import errno
import os

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import filesystem, loop
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.chown_tree import move_tree
from machinectl_py.kernel.idmap import map_tree
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.plan.step import MovableStep, Step
from machinectl_py.plan.steps.users import delegated
from machinectl_py.plan.users import root_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.plan.context import Context

    # How a file system comes to show the machine's ids: by a mapped mount, or, where all its files
    # have one owner, by an option.
    Owners = Literal["as-is", "map", "foreign", "option"]

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
            raise OSError(
                errno.EUCLEAN, f"{self.program} found errors that it cannot correct", path
            )


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
    owners: Owners = "as-is"
    count: int = 0  # ids of the machine, with `owners`

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.slot.rpartition(':')[2]}"

    def describe(self) -> str:
        """Return the act."""
        words = [f"{key}={value}" if value else key for key, value in self.options]
        text = f"fsmount {self.fstype} detached {','.join(words)}".rstrip()
        return text + (", for the ids of the machine" if self.owners != "as-is" else "")

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the device, and those of the range."""
        source = (self.source,) if self.source else ()
        return source if self.owners == "as-is" else (*source, "id-base", "id-delegated")

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (self.slot,)

    def apply(self, context: Context) -> None:
        """Mount it."""
        options = self.options
        if self.source:
            device = loop.device_path(context.number(self.source))
            options = (("source", device), *options)
        if self.owners == "option":
            base = str(context.number("id-base"))
            options = (*options, ("uid", base), ("gid", base))
        try:
            tree = filesystem.make_filesystem(self.fstype, options, self.attributes)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            if not self.optional:
                raise UnsupportedError(f"This kernel has no file system '{self.fstype}'") from error
            context.warn(f"{self.label()}: this kernel has no file system '{self.fstype}'")
            tree = -1
        context.give(self.slot, tree)
        if tree < 0:
            return
        if self.growfs:
            self._grow(context, tree)
        if self.owners in ("map", "foreign"):
            self._map(context, tree, self.owners)

    def _map(self, context: Context, tree: int, owners: Literal["map", "foreign"]) -> None:
        maps = root_maps(owners, context.number("id-base"), self.count, delegated(context))
        if maps is None:
            return
        try:
            map_tree(tree, maps)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            raise UnsupportedError(
                f"The ids of the {self.fstype} of partition '{self.slot.rpartition(':')[2]}'"
                " cannot be mapped by this kernel",
                "--private-users-ownership=chown changes the owners of the files instead.",
            ) from error

    def _grow(self, context: Context, tree: int) -> None:
        from machinectl_py.kernel.growfs import grow_filesystem

        try:
            grow_filesystem(tree, self.fstype, context.number(self.source))
        except OSError as error:  # it is whole, if small
            context.warn(f"{self.label()}: its file system stays as it is: {error.strerror}")


class ChownPartitions(Step):
    """Give the files of an image to the machine's range."""

    name = "chown-partitions"
    place = "supervisor"
    man = "chown(2)"
    because = "before the birth: inside, who they belong to now is nobody"
    lifetime = "process"  # it stays: --private-users-ownership=chown with the range 0 undoes it

    mounts: tuple[str, ...]  # slots

    def describe(self) -> str:
        """Return the act."""
        return "chown everything in the image to the range, unless it is"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots of the mounts, and of the range."""
        return ("id-base", *self.mounts)

    def apply(self, context: Context) -> None:
        """Change it; what was interrupted is taken up again."""
        for slot in self.mounts:
            # The "." leads to what the link of /proc shows, instead of to the link.
            move_tree(f"/proc/self/fd/{context.number(slot)}/.", context.number("id-base"))


class AttachPartition(MovableStep):
    """Attach a partition at its place below the root."""

    name = "attach-partition"
    man = "move_mount(2)"
    because = "resolved by the kernel within the root: no link inside leads out"

    slot: str
    root: str  # where the root is
    targets: tuple[str, ...]  # the first that fits
    empty: bool = False  # it fits if it is empty or missing; a lone one fits always

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.slot.rpartition(':')[2]}"

    def describe(self) -> str:
        """Return the act."""
        where = "" if self.root == "/" else f" in {self.root}"
        return f"attach the partition on {' or '.join(self.targets)}{where}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (self.slot,)

    def apply(self, context: Context) -> None:
        """Attach it; a boot partition without a free place stays away, as with systemd-nspawn."""
        tree = context.take(self.slot)
        if tree < 0:
            return
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
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
