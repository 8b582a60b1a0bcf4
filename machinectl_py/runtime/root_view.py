"""What is to be known of a root before a machine is planned: of a tree, and of a disk image."""

from __future__ import annotations

import os
import stat

from machinectl_py.errors import DeniedError, NotFoundError, PymachineError
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.plan.disk import DiskFacts, DiskPartition, ImageFacts, VerityFacts
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from machinectl_py.config.spec import RootSpec
    from machinectl_py.images.dissect import Disk, Partition

# File systems that are checked from outside; btrfs and XFS repair themselves, or not at all.
_CHECKED = ("ext4", "f2fs", "vfat")
_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


class RootView(Record):
    """A root as one may look into it; as a context manager, it is closed at the end.

    A directory is looked at where it is. Of an image the root is mounted read-only, on no
    directory, so that neither the host sees it nor a kill leaves it.
    """

    root: str  # the directory, or the image
    tree: str  # a path by which this process sees what is in it
    inner: str  # the same of what becomes /, which --pivot-root= has be a directory of the tree
    image: ImageFacts | None = None
    mount: int = -1  # descriptor of the mount that `tree` stands on
    directory: int = -1  # of `inner`, if that is not `tree`
    notice: str = ""  # for the user

    def __enter__(self) -> Self:
        """Look."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Let go of the image."""
        for fd in (self.mount, self.directory):
            if fd >= 0:
                os.close(fd)


def view_root(root: str, rootfs: RootSpec, *, ids: bool = False) -> RootView:
    """Return a view of a root.

    Args:
        root: absolute path of a directory, a disk image or a block device.
        rootfs: with the image policy, and what is known for dm-verity.
        ids: try of an image whether its ids can be mapped.

    Raises:
        DeniedError: it is an image, and the caller is not root.
        NotFoundError: there is no such image, or no directory that it is to pivot to.
        PymachineError: the image is damaged, or may or can not be used; names it.
    """
    if not rootfs.image:
        tree, mount = _view_layers(root, rootfs) if rootfs.layer else (root, -1)
        return _with_inner(RootView(root=root, tree=tree, inner=tree, mount=mount), rootfs)
    if os.geteuid():
        raise DeniedError("Only root may use disk images", "Try again with sudo.")
    try:
        image = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFoundError(f"{root}: {error.strerror}") from error
    try:
        return _with_inner(_view(image, root, rootfs, ids), rootfs)
    except PymachineError as error:
        message = error.message if root in error.message else f"{root}: {error.message}"
        raise type(error)(message, error.hint) from error
    finally:
        os.close(image)


def _view_layers(lowest: str | int, rootfs: RootSpec) -> tuple[str, int]:
    """Return a path and the mount of layers over a directory, or a detached mount, then used up."""
    from machinectl_py.images.machine_view import mount_view

    # `plan` may show what is not made yet.
    layers = tuple(filter(os.path.isdir, (f"{rootfs.layer}/upper", *rootfs.layers)))
    if not layers:
        return (lowest, -1) if isinstance(lowest, str) else (f"/proc/self/fd/{lowest}", lowest)
    mount = mount_view((*layers, lowest))
    if isinstance(lowest, int):
        os.close(lowest)
    return f"/proc/self/fd/{mount}", mount


def _with_inner(view: RootView, rootfs: RootSpec) -> RootView:
    if not rootfs.pivot_new:
        return view
    try:
        fd = open_in_root(view.tree, rootfs.pivot_new, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise NotFoundError(
            f"{rootfs.pivot_new} in {view.root}, which --pivot-root= names: {error.strerror}"
        ) from error
    return view.replace(inner=f"/proc/self/fd/{fd}", directory=fd)


def _view(image: int, root: str, rootfs: RootSpec, ids: bool) -> RootView:
    from machinectl_py.errors import ConfigError
    from machinectl_py.images.dissect import dissect
    from machinectl_py.images.verity import find_root_hash, find_verity_data
    from machinectl_py.images.view import open_view
    from machinectl_py.kernel.devicemapper import has_device_mapper

    status = os.fstat(image)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise ConfigError(f"{root} is neither a regular file nor a block device")
    root_hash = find_root_hash(root, rootfs.root_hash, rootfs.root_hash_signature)
    data_file = find_verity_data(root, rootfs.verity_data) if root_hash else ""
    disk = dissect(image, rootfs.image_policy, root_hash, data_file=bool(data_file))
    facts = DiskFacts(
        partitions=tuple(_partition(part, disk) for part in disk.partitions if _used(part, disk)),
        block_device=_number(status) if stat.S_ISBLK(status.st_mode) else "",
        sector_size=disk.sector_size,
        whole=disk.whole,
        verity=_verity(image, disk, data_file),
        device_mapper=has_device_mapper(),
        lock_beside=not root.startswith("/dev/") and os.access(os.path.dirname(root), os.W_OK),
    )
    view = open_view(image, disk, ids=ids)
    tree, mount = f"/proc/self/fd/{view.tree}", view.tree
    if rootfs.layer:
        tree, mount = _view_layers(view.tree, rootfs)
    notice = ""
    if disk.unused_verity:
        notice = f"{root} has verity data, and no root hash is known: it is not authenticated"
    found = ImageFacts(disk=facts, tree=tree, unmappable=view.unmappable)
    return RootView(root=root, tree=tree, inner=tree, image=found, mount=mount, notice=notice)


def _number(status: os.stat_result) -> str:
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _used(part: Partition, disk: Disk) -> bool:
    return bool(part.fstype) or (part.designator == f"{disk.protected}-verity")


def _partition(part: Partition, disk: Disk) -> DiskPartition:
    return DiskPartition(
        designator=part.designator,
        offset=part.offset,
        size=part.size,
        fstype=part.fstype,
        read_only=part.read_only or part.designator == f"{disk.protected}-verity",
        growfs=part.growfs,
        fsck=_checker(part.fstype),
    )


def _checker(fstype: str) -> str:
    if fstype not in _CHECKED:
        return ""
    paths = (f"{place}/fsck.{fstype}" for place in _SBIN)
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def _verity(image: int, disk: Disk, data_file: str) -> VerityFacts | None:
    """Return how the image is authenticated, by the superblock of its hashes."""
    from machinectl_py.images.verity import read_verity_superblock, verity_parameters

    data = disk.find(disk.protected) if disk.protected else None
    if data is None or disk.root_hash is None:
        return None
    hashes = disk.find(f"{disk.protected}-verity")
    if data_file:
        source, offset = os.open(data_file, os.O_RDONLY | os.O_CLOEXEC), 0
    else:
        assert hashes is not None
        source, offset = os.dup(image), hashes.offset
    try:
        tree = read_verity_superblock(source, offset, data.size)
    finally:
        os.close(source)
    signature = disk.root_hash.signature
    key = f"pymachine:{disk.root_hash.hash[:32]}" if signature else ""
    return VerityFacts(
        designator=disk.protected,
        data_file=data_file,
        sectors=tree.data_blocks * tree.data_block_size // 512,
        parameters=verity_parameters(tree, "{data}", "{hashes}", disk.root_hash.hash, key),
        signature=signature,
        signature_key=key,
    )
