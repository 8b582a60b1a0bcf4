"""A disk image as the planner knows it: what was found on it, frozen."""

from __future__ import annotations

from machinectl_py.record import Record


class DiskPartition(Record):
    """A file system of the image, or its hashes for dm-verity."""

    designator: str  # "root", "usr", "home", …, "root-verity"
    offset: int  # bytes
    size: int  # bytes
    fstype: str = ""  # as mount(2) names it
    read_only: bool = False
    growfs: bool = False  # its file system shall fill it
    fsck: str = ""  # the program that checks it; "": none is needed, or there is none


class VerityFacts(Record):
    """How dm-verity authenticates one partition."""

    designator: str  # that partition: "root" or "usr"
    data_file: str  # the hashes are in this file; "": in a partition of the image
    sectors: int  # of the authenticated device, in units of 512 bytes
    parameters: str  # of the target, with {data} and {hashes} for the devices
    signature: str = ""  # PKCS#7, base64
    signature_key: str = ""  # description of the key that holds it


class DiskFacts(Record):
    """What is on a disk image, and where it is."""

    partitions: tuple[DiskPartition, ...]
    block_device: str = ""  # its "MAJOR:MINOR"; "": a regular file
    sector_size: int = 512
    whole: bool = False  # a file system without partition table
    verity: VerityFacts | None = None
    device_mapper: bool = False  # this kernel has one
    lock_beside: bool = True  # a lock file can be made beside the image

    def find(self, designator: str) -> DiskPartition | None:
        """Return the partition of a designator."""
        return next((p for p in self.partitions if p.designator == designator), None)

    @property
    def system(self) -> DiskPartition | None:
        """The partition that holds the operating system: the root, or /usr alone."""
        return self.find("root") or self.find("usr")


class ImageFacts(Record):
    """A disk image that is looked into."""

    disk: DiskFacts
    tree: str  # a path by which this process sees its root, for as long as it looks
    unmappable: str = ""  # why its ids cannot be mapped: a file system; "" if they can
