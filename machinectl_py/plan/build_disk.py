"""The steps of a root that is a disk image; pure, as all of the planner."""

from __future__ import annotations

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.kernel.filesystem import can_discard, no_recovery
from machinectl_py.plan.steps import disk, disk_mounts, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.disk import DiskFacts, DiskPartition
    from machinectl_py.plan.step import Step
    from machinectl_py.plan.steps.disk_mounts import Owners
    from machinectl_py.plan.users import UsersPlan

# Where each goes below the root, in this order: the first place that is free, for boot
# partitions; systemd-nspawn(1), --image=.
_PLACES = {
    "home": ("/home",),
    "srv": ("/srv",),
    "var": ("/var",),
    "tmp": ("/var/tmp",),
    "xbootldr": ("/boot",),
    "esp": ("/boot", "/efi"),
}
_BOOT = ("xbootldr", "esp")
_SEALED = const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NOEXEC | const.MOUNT_ATTR_NOSYMFOLLOW


def take_root(
    spec: MachineSpec, found: DiskFacts, *, number: str, read_only: bool
) -> tuple[Step, ...]:
    """Return the launcher's steps that lock the image and make block devices of it.

    Args:
        spec: of the machine.
        found: what is on the image.
        number: "DEVICE:INODE" of the image.
        read_only: nothing of it is to be written.

    Raises:
        UnsupportedError: the image is to be authenticated, and this kernel cannot; or it is a
            block device, of which an ephemeral machine would need a copy.
    """
    _check_verity(found)
    ephemeral = spec.rootfs.ephemeral
    if ephemeral and found.block_device:
        raise UnsupportedError(
            f"No ephemeral machine can be made of {spec.root}: a block device is not copied",
            "--volatile=overlay keeps in memory what the machine writes.",
        )
    parts = _attached(found)
    # What is copied is read alone.
    lock = _lock(spec, found, number, shared=read_only or ephemeral)
    steps: list[Step] = [
        *((lock,) if spec.rootfs.lock else ()),
        disk.OpenImage(
            image=spec.root,
            read_only=read_only and not ephemeral,
            ephemeral=ephemeral,
            exclusive=bool(found.block_device and parts and not read_only),
        ),
    ]
    data_file = found.verity.data_file if found.verity else ""
    if parts or data_file:
        steps.append(
            disk.AttachLoops(
                image=spec.root,
                partitions=parts,
                sector_size=found.sector_size,
                read_only=read_only,
                verity_file=data_file,
            )
        )
    if found.verity:
        data = found.verity.designator
        steps.append(
            disk.ActivateVerity(
                machine=spec.name,
                verity=found.verity,
                data=_device(found, data),
                hashes=disk.device_slot("verity-file" if data_file else f"{data}-verity"),
            )
        )
    return tuple(steps)


def device_slots(found: DiskFacts) -> tuple[str, ...]:
    """Return the slots with the numbers of the block devices that a scope must let us mount."""
    loops = _attached(found) or (found.verity and found.verity.data_file)
    return (
        *((disk.LOOPS,) if loops else (disk.IMAGE_NUMBER,)),
        *((disk.VERIFIED_NUMBER,) if found.verity else ()),
    )


def _check_verity(found: DiskFacts) -> None:
    if found.verity and not found.device_mapper:
        raise UnsupportedError(
            "The image has a root hash, and this kernel has no device mapper to authenticate it:"
            " /dev/mapper/control is missing",
            "It takes CONFIG_DM_VERITY; '--image-policy=root=unprotected' uses an image that only"
            " has hashes without them.",
        )


def _lock(spec: MachineSpec, found: DiskFacts, number: str, *, shared: bool) -> Step:
    directory, _, name = spec.root.rpartition("/")
    return disk.LockImage(
        image=spec.root,
        number=f"block-{found.block_device}" if found.block_device else f"inode-{number}",
        beside=f"{directory}/.#{name}.lck" if found.lock_beside else "",
        shared=shared,
    )


def _attached(found: DiskFacts) -> tuple[DiskPartition, ...]:
    """Return what takes a loop device: all but a block device that is a file system itself."""
    return () if found.whole and found.block_device else found.partitions


def _device(found: DiskFacts, designator: str) -> str:
    """Return the slot of the device that holds a partition."""
    return disk.device_slot(designator) if _attached(found) else disk.IMAGE


def _file_systems(found: DiskFacts) -> tuple[DiskPartition, ...]:
    return tuple(part for part in found.partitions if part.fstype)


def mount_partitions(
    found: DiskFacts, plan: UsersPlan | None, *, read_only: bool
) -> tuple[Step, ...]:
    """Return the supervisor's steps that check and mount what the image holds, detached.

    Args:
        found: what is on the image.
        plan: the user namespace.
        read_only: nothing of it is to be written.
    """
    steps: list[Step] = []
    if found.find("root") is None:
        steps.append(
            disk_mounts.MountPartition(
                slot=root.ROOT_TREE,
                fstype="tmpfs",
                source="",
                options=(("mode", "0755"),),
                attributes=const.MOUNT_ATTR_NODEV,
                owners="option" if plan else "as-is",
            )
        )
    for part in _file_systems(found):
        steps += _mount(part, found, plan, read_only=read_only or part.read_only)
    if plan and plan.ownership == "chown":
        steps.append(disk_mounts.ChownPartitions(mounts=_owned(found, read_only=read_only)))
    return tuple(steps)


def under_layers(steps: tuple[Step, ...], slot: str) -> tuple[Step, ...]:
    """Return the steps that mount an image whose root becomes the lowest of layers.

    Args:
        steps: of `mount_partitions`.
        slot: which the mount of the root goes to.
    """
    return tuple(
        step.replace(slot=slot)
        if isinstance(step, disk_mounts.MountPartition) and step.slot == root.ROOT_TREE
        else step
        for step in steps
    )


def _owned(found: DiskFacts, *, read_only: bool) -> tuple[str, ...]:
    """Return the slots of the mounts whose files are given to a range."""
    return tuple(
        disk_mounts.mount_slot(part.designator)
        for part in _file_systems(found)
        if part.fstype != "vfat" and (part is found.system or not (part.read_only or read_only))
    )


def _mount(
    part: DiskPartition, found: DiskFacts, plan: UsersPlan | None, *, read_only: bool
) -> list[Step]:
    verified = found.verity is not None and found.verity.designator == part.designator
    source = disk.VERIFIED if verified else _device(found, part.designator)
    options: list[tuple[str, str]] = []
    attributes = const.MOUNT_ATTR_NODEV
    if read_only:
        options += [("ro", ""), *no_recovery(part.fstype)]
        attributes |= const.MOUNT_ATTR_RDONLY
    elif can_discard(part.fstype) and not found.block_device:
        options.append(("discard", ""))  # the file gets holes for it
    if part.designator in _BOOT:
        attributes |= _SEALED
        options += [("umask", "0077")] if part.fstype == "vfat" else []
    elif part.designator == "tmp":
        attributes |= const.MOUNT_ATTR_NOSUID
    steps: list[Step] = []
    if part.fsck and not read_only:
        steps.append(
            disk_mounts.CheckFileSystem(
                designator=part.designator, source=source, program=part.fsck
            )
        )
    steps.append(
        disk_mounts.MountPartition(
            slot=disk_mounts.mount_slot(part.designator),
            fstype=part.fstype,
            source=source,
            options=tuple(options),
            attributes=attributes,
            growfs=part.growfs and not read_only,
            optional=part.designator in _BOOT,
            owners=_owners(part, plan),
            count=plan.count if plan else 0,
        )
    )
    return steps


def _owners(part: DiskPartition, plan: UsersPlan | None) -> Owners:
    if plan is None:
        return "as-is"
    if part.fstype == "vfat":
        return "option"
    return "as-is" if plan.ownership == "chown" else plan.ownership


def holder(found: DiskFacts, path: str) -> tuple[str, str]:
    """Return the slot of the mount that holds a path of the machine, and the path in it."""
    names = "/".join(part for part in path.split("/") if part not in ("", "."))
    best, below = root.ROOT_TREE, names
    for designator, (place, *_) in (*_PLACES.items(), ("usr", ("/usr",))):
        part = found.find(designator)
        if part and part.fstype and f"/{names}/".startswith(f"{place}/"):
            rest = names[len(place) :]
            if designator not in _BOOT and len(rest) < len(below):
                best, below = disk_mounts.mount_slot(designator), rest
    return best, below or "."


def attach_usr(found: DiskFacts, place: str) -> tuple[Step, ...]:
    """Return the inside step that mounts a /usr of its own in the root at `place`."""
    part = found.find("usr")
    if part is None or not part.fstype:
        return ()
    slot = disk_mounts.mount_slot("usr")
    return (disk_mounts.AttachPartition(slot=slot, root=place, targets=("/usr",)),)


def attach_others(found: DiskFacts) -> tuple[Step, ...]:
    """Return the inside steps after the pivot that mount what is neither root nor /usr."""
    steps: list[Step] = []
    for designator, places in _PLACES.items():
        part = found.find(designator)
        if part is not None and part.fstype:
            slot, boot = disk_mounts.mount_slot(designator), designator in _BOOT
            steps.append(
                disk_mounts.AttachPartition(slot=slot, root="/", targets=places, empty=boot)
            )
    return tuple(steps)
