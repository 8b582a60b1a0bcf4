"""A disk image taken up by the launcher: lock, descriptor, loop devices, dm-verity.

Devices are taken by descriptors alone, and each is of the kind that the kernel takes down with
its last user, so that no kill of ours can leave one behind.
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError, UnsupportedError
from machinectl_py.kernel import devicemapper, loop
from machinectl_py.kernel.copy_file import copy_unnamed
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.layout import ROOT_LOCK_DIR
from machinectl_py.plan.disk import DiskPartition, VerityFacts
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

IMAGE = "disk:image"
VERIFIED = "disk:verified"
# The devices' numbers, as "7:0,7:1": for the scope, which lets nobody use others, and for undoing.
IMAGE_NUMBER = "image"
LOOPS = "loops"
VERIFIED_NUMBER = "verified"
_PATIENCE = 5.0  # seconds that a file system may take to be written back
_ENOKEY, _EKEYREJECTED = 126, 129


def device_slot(designator: str) -> str:
    """Return the slot of a partition's block device."""
    return f"disk:{designator}"


def _number(device: int) -> str:
    """Return the "MAJOR:MINOR" of an open block device; "0:0" of a file."""
    number = os.fstat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


class LockImage(Step):
    """Take systemd-nspawn's locks of a disk image; several may read it, or one write."""

    name = "lock-image"
    place = "launcher"
    man = "fcntl_locking(2)"
    because = "two kernels' worth of writes into one file system would spoil it"
    lifetime = "host"
    takes = ("lock",)

    image: str
    number: str  # "inode-DEV:INO" or "block-MAJOR:MINOR"
    beside: str  # a lock file next to the image, for those who share it by network; "" for none
    shared: bool

    def describe(self) -> str:
        """Return the act."""
        return f"lock {self.image} by {self._path()}" + (", shared" if self.shared else "")

    def command(self) -> str:
        """Return the shell's way."""
        return f"flock --nonblock {self._path()} …"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slots of both locks."""
        return ("root-lock", "disk:lock") if self.beside else ("root-lock",)

    def _path(self) -> str:
        return f"{ROOT_LOCK_DIR}/{self.number}"

    def apply(self, context: Context) -> None:
        """Take both, or say that the image is in use."""
        os.makedirs(ROOT_LOCK_DIR, mode=0o700, exist_ok=True)
        for slot, path in zip(self.given_slots(), (self._path(), self.beside), strict=False):
            fd = take_lock(path, shared=self.shared)
            if fd is None:
                raise ConflictError(f"The image {self.image} is in use by another machine")
            context.give(slot, fd)

    def undo(self, context: Context) -> None:
        """Remove the locks' files, unless another holds them by now."""
        for slot, path in (("root-lock", self._path()), ("disk:lock", self.beside)):
            if slot in context.slots:
                drop_lock(path, context.number(slot))
                del context.slots[slot]
            elif path and not is_locked(path):
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass


class OpenImage(Step):
    """Open the image, or an unnamed copy of it."""

    name = "open-image"
    place = "launcher"
    man = "open(2)"
    because = "once: what is attached is the file that was locked, whatever its name becomes"
    lifetime = "process"
    gives = (IMAGE, IMAGE_NUMBER)

    image: str
    read_only: bool
    ephemeral: bool
    exclusive: bool  # a block device is claimed, so that nobody mounts it meanwhile

    def describe(self) -> str:
        """Return the act."""
        if self.ephemeral:
            return f"copy {self.image} to a file without a name"
        return f"open {self.image}" + (" read-only" if self.read_only else "")

    def command(self) -> str:
        """Return the shell's way."""
        return f"cp --reflink=auto {self.image} …" if self.ephemeral else ""

    def apply(self, context: Context) -> None:
        """Open it so that the loop device may write as far as it must."""
        if self.ephemeral:
            image = copy_unnamed(self.image)
        else:
            mode = os.O_RDONLY if self.read_only else os.O_RDWR
            exclusive = os.O_EXCL if self.exclusive else 0
            image = os.open(self.image, mode | os.O_CLOEXEC | exclusive)
        context.give(IMAGE, image)
        context.give(IMAGE_NUMBER, _number(image))


class AttachLoops(Step):
    """Make each part of the image, or a file with verity data, a block device."""

    name = "attach-loops"
    place = "launcher"
    man = "loop(4)"
    because = "in the launcher: held open over each reboot, so that a file is never attached twice"
    lifetime = "host"
    takes = (IMAGE,)

    image: str
    partitions: tuple[DiskPartition, ...]
    sector_size: int
    read_only: bool
    verity_file: str = ""  # with hashes, if they are not on the image

    def describe(self) -> str:
        """Return the act."""
        names = [partition.designator for partition in self.partitions]
        names += ["verity data"] if self.verity_file else []
        return f"attach loop devices with autoclear to {', '.join(names)}"

    def command(self) -> str:
        """Return the shell's way."""
        first = self.partitions[0]
        mode = " --read-only" if self.read_only or first.read_only else ""
        place = f"--offset={first.offset} --sizelimit={first.size}"
        return f"losetup --find --show{mode} {place} {self.image}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slots of the devices, and that of their numbers."""
        devices = [device_slot(partition.designator) for partition in self.partitions]
        devices += [device_slot("verity-file")] if self.verity_file else []
        return (*devices, LOOPS)

    def apply(self, context: Context) -> None:
        """Attach them; the kernel detaches each when its last user is gone."""
        backing = context.number(IMAGE)
        for partition in self.partitions:
            self._attach(context, partition, backing)
        if self.verity_file:
            data = os.open(self.verity_file, os.O_RDONLY | os.O_CLOEXEC)
            size = os.fstat(data).st_size
            whole = DiskPartition(designator="verity-file", offset=0, size=size, read_only=True)
            self._attach(context, whole, data)
            os.close(data)
        devices = [context.number(slot) for slot in self.given_slots()[:-1]]
        context.give(LOOPS, ",".join(map(_number, devices)))

    def _attach(self, context: Context, partition: DiskPartition, backing: int) -> None:
        try:
            device = loop.attach_loop(
                backing,
                offset=partition.offset,
                size=partition.size,
                read_only=self.read_only or partition.read_only,
                block_size=self.sector_size,
            )
        except FileNotFoundError as error:
            raise UnsupportedError(
                f"This host has no loop devices: {error.filename} is missing",
                "'modprobe loop' loads their driver; a container is given them by its host.",
            ) from error
        context.give(device_slot(partition.designator), device)

    def undo(self, context: Context) -> None:
        """Let go, and wait until the kernel has written all and detached them.

        The mounts end with the machine's mount namespace, a moment after its last process: who
        takes the image up before that would write beside the old file system.
        """
        known = context.slots.get(LOOPS, "")
        numbers = set(known.split(",") if isinstance(known, str) and known else ())
        for slot in (*self.given_slots()[:-1], VERIFIED, IMAGE):
            fd = context.slots.pop(slot, -1)
            if isinstance(fd, int) and fd >= 0:
                numbers.add(_number(fd))
                os.close(fd)
        for number in numbers:
            major, _, minor = number.partition(":")
            if int(major) == loop.LOOP_MAJOR:
                loop.wait_detached(int(minor), self.image, timeout=_PATIENCE)


class ActivateVerity(Step):
    """Let every block of the data be authenticated by the root hash when it is read."""

    name = "activate-verity"
    place = "launcher"
    man = "dm-verity(kernel documentation)"
    because = "before the file system is mounted: nothing of it is read unchecked"
    lifetime = "process"
    gives = (VERIFIED, VERIFIED_NUMBER)

    machine: str
    verity: VerityFacts
    data: str  # slot of the device with the data
    hashes: str  # slot of the device with the hashes

    def describe(self) -> str:
        """Return the act."""
        return f"dm-verity over the partition {self.verity.designator}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"veritysetup open DATA {self.machine} HASHES ROOTHASH"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots of data and hashes."""
        return (self.data, self.hashes)

    def apply(self, context: Context) -> None:
        """Make the device; the kernel removes it when the last user is gone."""
        data, hashes = (os.fstat(context.number(slot)).st_rdev for slot in (self.data, self.hashes))
        parameters = self.verity.parameters.format(
            data=f"{os.major(data)}:{os.minor(data)}",
            hashes=f"{os.major(hashes)}:{os.minor(hashes)}",
        )
        if self.verity.signature:
            import binascii

            from machinectl_py.kernel.keyring import add_user_key

            add_user_key(self.verity.signature_key, binascii.a2b_base64(self.verity.signature))
        name = f"pymachine-{self.machine}-{os.urandom(4).hex()}"
        try:
            device = devicemapper.create_device(
                name,
                f"PYMACHINE-{name}",
                "verity",
                parameters,
                sectors=self.verity.sectors,
                read_only=True,
            )
        except OSError as error:
            if error.errno in (_ENOKEY, _EKEYREJECTED):
                raise UnsupportedError(
                    "The kernel has no key that vouches for the signature of the root hash",
                    "Its trusted keyrings are filled by the firmware or when it is built.",
                ) from error
            raise
        context.give(VERIFIED, device)
        context.give(VERIFIED_NUMBER, _number(device))
