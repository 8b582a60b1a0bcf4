"""The steps of a root that is a disk image; pure, as all of the planner."""

from __future__ import annotations

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.kernel.filesystem import can_discard, no_recovery
from machinectl_py.layout import machine_dir
from machinectl_py.plan.steps import disk, disk_mounts, host, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.disk import DiskFacts, DiskPartition
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

# Where each goes below the root, in this order: the first place that is free, for boot
# partitions; systemd-nspawn(1), --image=.
_PLACES = {
    "usr": ("/usr",),
    "home": ("/home",),
    "srv": ("/srv",),
    "var": ("/var",),
    "tmp": ("/var/tmp",),
    "xbootldr": ("/boot",),
    "esp": ("/boot", "/efi"),
}
_BOOT = ("xbootldr", "esp")
_SEALED = const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NOEXEC | const.MOUNT_ATTR_NOSYMFOLLOW


def take_root(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the launcher's steps that lock the root and, of an image, make block devices.

    Raises:
        UnsupportedError: the image is to be authenticated, and this kernel cannot.
    """
    found = facts.disk
    if found is None:
        return (host.LockRoot(root=spec.root, device=facts.root_device, inode=facts.root_inode),)
    _check_verity(found)
    ephemeral = spec.rootfs.ephemeral
    parts = _attached(found)
    steps: list[Step] = [
        _lock(spec, facts, found),
        disk.OpenImage(
            image=spec.root,
            read_only=spec.read_only and not ephemeral,
            ephemeral=ephemeral,
            exclusive=bool(found.block_device and parts and not spec.read_only),
        ),
    ]
    data_file = found.verity.data_file if found.verity else ""
    if parts or data_file:
        steps.append(
            disk.AttachLoops(
                image=spec.root,
                partitions=parts,
                sector_size=found.sector_size,
                read_only=spec.read_only,
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


def device_slots(facts: HostFacts) -> tuple[str, ...]:
    """Return the slots with the numbers of the block devices that a scope must let us mount."""
    found = facts.disk
    if found is None:
        return ()
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


def _lock(spec: MachineSpec, facts: HostFacts, found: DiskFacts) -> Step:
    number = f"inode-{facts.root_device}:{facts.root_inode}"
    if found.block_device:
        number = f"block-{found.block_device}"
    directory, _, name = spec.root.rpartition("/")
    beside = f"{directory}/.#{name}.lck" if found.lock_beside else ""
    # What is copied is read alone.
    shared = spec.read_only or spec.rootfs.ephemeral
    return disk.LockImage(image=spec.root, number=number, beside=beside, shared=shared)


def _attached(found: DiskFacts) -> tuple[DiskPartition, ...]:
    """Return what takes a loop device: all but a block device that is a file system itself."""
    return () if found.whole and found.block_device else found.partitions


def _device(found: DiskFacts, designator: str) -> str:
    """Return the slot of the device that holds a partition."""
    return disk.device_slot(designator) if _attached(found) else disk.IMAGE


def _file_systems(found: DiskFacts) -> tuple[DiskPartition, ...]:
    return tuple(part for part in found.partitions if part.fstype)


def mount_partitions(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's steps that check and mount what the image holds, detached."""
    if facts.disk is None:
        return ()
    steps: list[Step] = []
    if facts.disk.find("root") is None:
        steps.append(
            disk_mounts.MountPartition(
                slot=disk_mounts.ROOT_TREE,
                fstype="tmpfs",
                source="",
                options=(("mode", "0755"),),
                attributes=const.MOUNT_ATTR_NODEV,
            )
        )
    for part in _file_systems(facts.disk):
        steps += _mount(part, facts.disk, read_only=spec.read_only or part.read_only)
    return tuple(steps)


def _mount(part: DiskPartition, found: DiskFacts, *, read_only: bool) -> list[Step]:
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
        )
    )
    return steps


def release_mounts(facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's step after the birth."""
    if facts.disk is None:
        return ()
    names = ["root", *(part.designator for part in _file_systems(facts.disk))]
    slots = dict.fromkeys(disk_mounts.mount_slot(name) for name in names)
    return (disk_mounts.ReleaseMounts(mounts=tuple(slots)),)


def enter_root(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the inside steps up to the pivot, and of an image what it has below the root."""
    if facts.disk is None:
        return (root.BindRoot(root=spec.root), root.PivotRoot(root=spec.root))
    # A directory that every host has, as what stands in it is covered in our namespace alone.
    target = machine_dir(spec.name)
    steps: list[Step] = [disk_mounts.AttachRoot(target=target), root.PivotRoot(root=target)]
    for designator, places in _PLACES.items():
        part = facts.disk.find(designator)
        if part is not None and part.fstype:
            slot = disk_mounts.mount_slot(designator)
            boot = designator in _BOOT
            steps.append(disk_mounts.AttachPartition(slot=slot, targets=places, empty=boot))
        if designator == "usr" and facts.disk.find("root") is None:
            steps.append(disk_mounts.FillEmptyRoot())
    return tuple(steps)
