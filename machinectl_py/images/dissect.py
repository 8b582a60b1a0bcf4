"""What is on a disk image: the partitions that a machine is made of, and how protected.

The choice among partitions is systemd-nspawn's: the Discoverable Partitions Specification,
else the one generic Linux partition of a GPT, else the one bootable Linux partition of an MBR,
else a file system that fills the image.
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.images import gpt_types
from machinectl_py.images.partition_table import Table, TableEntry, disk_size, read_gpt, read_mbr
from machinectl_py.images.policy import CONTAINER_POLICY, ImagePolicy, parse_policy
from machinectl_py.images.superblock import (
    ALWAYS_READ_ONLY,
    LUKS,
    MOUNTABLE,
    VERITY_HASH,
    probe_filesystem,
)
from machinectl_py.images.verity import RootHash, embedded_root_hash
from machinectl_py.images.versions import compare_versions
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MBR_LINUX, _MBR_BOOT = "83", "ea"
_HINT = (
    "It must follow the Discoverable Partitions Specification, have one Linux partition"
    " (of an MBR: marked bootable), or be a file system as a whole."
)


class Partition(Record):
    """A partition, or the whole image, that is used."""

    designator: str  # "root", "usr", "home", …, "root-verity"
    offset: int  # bytes
    size: int  # bytes
    fstype: str = ""  # as mount(2) names it; "" of what is no file system
    read_only: bool = False  # by its attribute, or as its file system is
    growfs: bool = False
    label: str = ""
    uuid: str = ""
    rank: int = 0  # how well its architecture suits this kernel


class Disk(Record):
    """A disk image, dissected."""

    partitions: tuple[Partition, ...]
    sector_size: int = 512
    whole: bool = False  # no partition table: a file system alone
    protected: str = ""  # the partition that dm-verity authenticates: "root", "usr", or ""
    root_hash: RootHash | None = None  # by which it does: the one given, or embedded and signed
    unused_verity: bool = False  # it has verity data, and nobody told the root hash

    def find(self, designator: str) -> Partition | None:
        """Return the partition of a designator."""
        return next((p for p in self.partitions if p.designator == designator), None)


def dissect(
    fd: int, policy: str = "", root_hash: RootHash | None = None, *, data_file: bool = False
) -> Disk:
    """Return what is on a disk image.

    Args:
        fd: of the image, readable.
        policy: systemd.image-policy(7); "" is systemd-nspawn's for containers.
        root_hash: dm-verity's, if one is known.
        data_file: verity data are in a file of their own, so the image is a file system alone.

    Raises:
        ConfigError: it is damaged, holds nothing that can be a root, or the policy forbids it.
        UnsupportedError: it is encrypted.
        OSError: the medium cannot be read.
    """
    return _Dissection(fd, parse_policy(policy or CONTAINER_POLICY), root_hash).run(data_file)


class _Dissection:
    def __init__(self, fd: int, policy: ImagePolicy, root_hash: RootHash | None) -> None:
        self.fd, self.policy, self.hash = fd, policy, root_hash
        self.found: dict[str, Partition] = {}
        self.ignored: set[str] = set()
        self.attributes: dict[str, int] = {}
        self.unused_verity = False
        self.generic: list[TableEntry] = []

    def run(self, data_file: bool) -> Disk:
        fstype = probe_filesystem(self.fd)
        table = read_gpt(self.fd, backup=not fstype)
        if fstype and table is not None:
            raise ConfigError(f"It holds both a partition table and the mark of {fstype}", _HINT)
        if fstype:
            return self._whole(fstype, data_file)
        table = table or read_mbr(self.fd)
        if table is None:
            raise ConfigError("It has neither a partition table nor a known file system", _HINT)
        if data_file:
            raise ConfigError("It has a partition table, so its verity data cannot be a file")
        return self._partitioned(table)

    def _whole(self, fstype: str, data_file: bool) -> Disk:
        if not self.policy.may_use("root"):
            raise ConfigError("The image policy ignores the file system that fills it")
        protected = self.hash is not None and data_file
        if protected and self.hash is not None:
            state = "signed" if self.hash.signature else "verity"
        else:
            state = "encrypted" if fstype == LUKS else "unprotected"
        self.policy.check("root", {state})
        self.policy.check_attributes("root", read_only=False, growfs=False)
        if self.hash is not None and not protected:
            raise ConfigError("There is a root hash, and no verity data for it")
        _mountable("root", fstype)
        root = Partition(
            designator="root",
            offset=0,
            size=disk_size(self.fd),
            fstype=fstype,
            read_only=protected or fstype in ALWAYS_READ_ONLY,
        )
        return Disk(
            partitions=(root,),
            whole=True,
            protected="root" if protected else "",
            root_hash=self.hash,
        )

    def _partitioned(self, table: Table) -> Disk:
        if table.kind == "gpt":
            types = gpt_types.types_for(os.uname().machine)
            for entry in table.entries:
                self._consider(entry, *types.get(entry.type, ("", 0)))
        else:
            self._consider_mbr(table)
        if not {"root", "usr"} & self.found.keys():
            self._use_generic()
        protected = self._protection()
        self._enforce(protected)
        _refuse_overlap(self.found.values())
        partitions = [self._probed(partition, protected) for partition in self.found.values()]
        return Disk(
            partitions=tuple(p for p in partitions if p.designator != "swap"),
            sector_size=table.sector_size,
            protected=protected,
            root_hash=self.hash,
            unused_verity=self.unused_verity and not protected,
        )

    def _consider(self, entry: TableEntry, designator: str, rank: int) -> None:
        """Take a partition of a GPT if it is for us, and better than one of its kind before."""
        skip = gpt_types.NO_BLOCK_IO if designator == "esp" else gpt_types.NO_AUTO
        if not designator or entry.attributes & skip:
            return
        if designator == "generic":
            self.generic.append(entry)
            return
        data, _, protection = designator.partition("-")
        if protection:
            self.unused_verity = True
        if not self._by_hash(data, protection, entry):
            return
        if not self.policy.may_use(designator):
            self.ignored.add(designator)
            return
        before = self.found.get(designator)
        if before is not None and (
            rank < before.rank or (rank == before.rank and not _is_newer(designator, entry, before))
        ):
            return
        self._take(entry, designator, rank)

    def _by_hash(self, data: str, protection: str, entry: TableEntry) -> bool:
        """Say whether the root hash, whose halves are the partitions' UUIDs, lets it be used."""
        if self.hash is None:
            return True
        if self.hash.designator != data:
            return not protection
        wanted = {"": self.hash.data_uuid, "verity": self.hash.hash_uuid}.get(protection)
        return wanted is None or wanted == entry.uuid

    def _take(self, entry: TableEntry, designator: str, rank: int = 2) -> None:
        flags = 0 if designator == "esp" else entry.attributes
        read_only = bool(flags & gpt_types.READ_ONLY) or "-" in designator
        self.attributes[designator] = flags
        self.found[designator] = Partition(
            designator=designator,
            offset=entry.offset,
            size=entry.size,
            read_only=read_only,
            growfs=bool(flags & gpt_types.GROW_FILE_SYSTEM) and not read_only,
            label=entry.label,
            uuid=entry.uuid,
            rank=rank,
        )

    def _consider_mbr(self, table: Table) -> None:
        self.generic = [e for e in table.entries if e.type == _MBR_LINUX and e.bootable]
        for entry in table.entries:
            if entry.type == _MBR_BOOT and "xbootldr" not in self.found:
                if self.policy.may_use("xbootldr"):
                    self._take(entry, "xbootldr")
                else:
                    self.ignored.add("xbootldr")

    def _use_generic(self) -> None:
        if self.hash is not None:
            raise ConfigError("It has no partitions that belong to the root hash")
        if len(self.generic) > 1:
            raise ConfigError("It has several Linux partitions, and none is marked as the root")
        if not self.generic:
            raise ConfigError("It has no partition that can be the root", _HINT)
        if self.policy.may_use("root"):
            self._take(self.generic[0], "root")
        else:
            self.ignored.add("root")
            raise ConfigError("The image policy ignores the only partition that can be the root")

    def _protection(self) -> str:
        """Return the partition that dm-verity shall authenticate; drop what protects nothing."""
        for data in ("root", "usr"):
            sig, verity = f"{data}-verity-sig" in self.found, f"{data}-verity" in self.found
            if (sig and not verity) or (verity and data not in self.found):
                raise ConfigError(f"It has verity data for '{data}' whose other half is missing")
        if "root-verity" in self.found and "usr" in self.found:
            raise ConfigError("A root with verity data and a partition for /usr exclude each other")
        self._use_embedded_hash()
        if self.hash is None:
            return ""
        if f"{self.hash.designator}-verity" not in self.found:
            raise ConfigError("It has no verity data that belong to the root hash")
        return self.hash.designator

    def _use_embedded_hash(self) -> None:
        """Take the signed root hash that the image itself has, or the signature of ours."""
        for data in (self.hash.designator,) if self.hash else ("root", "usr"):
            signed = self.found.get(f"{data}-verity-sig")
            if signed is None or (self.hash is not None and self.hash.signature):
                continue
            embedded = embedded_root_hash(self.fd, signed.offset, signed.size, data)
            if self.hash is not None and embedded.hash != self.hash.hash:
                raise ConfigError("The root hash that is signed on it is not the one given")
            self.hash = embedded
            return

    def _enforce(self, protected: str) -> None:
        """Compare what was found with the policy: how it will be used, not how it could be."""
        for name in gpt_types.POLICY_ORDER:
            if name in self.found:
                state = {"encrypted", "unprotected"}
                if name == protected and self.hash is not None:
                    state = {"signed"} if self.hash.signature else {"verity"}
                flags = self.attributes[name]
                self.policy.check_attributes(
                    name,
                    read_only=bool(flags & gpt_types.READ_ONLY),
                    growfs=bool(flags & gpt_types.GROW_FILE_SYSTEM),
                )
            else:
                state = {"unused"} if name in self.ignored else {"absent"}
            self.policy.check(name, state)

    def _probed(self, partition: Partition, protected: str) -> Partition:
        """Return a partition with its file system."""
        designator = partition.designator
        if designator in ("swap", "root-verity-sig", "usr-verity-sig"):
            return partition
        fstype = probe_filesystem(self.fd, partition.offset, partition.size)
        present = {"unprotected", "verity", "signed"}
        self.policy.check(designator, {"encrypted"} if fstype == LUKS else present)
        if designator.endswith("-verity"):
            if protected and fstype != VERITY_HASH:
                raise ConfigError(f"The partition '{designator}' holds no verity data")
            return partition
        _mountable(designator, fstype)
        read_only = partition.read_only or fstype in ALWAYS_READ_ONLY or designator == protected
        return partition.replace(
            fstype=fstype, read_only=read_only, growfs=partition.growfs and not read_only
        )


def _mountable(designator: str, fstype: str) -> None:
    if fstype == LUKS:
        raise UnsupportedError(
            f"The partition '{designator}' is encrypted with LUKS, which cannot be unlocked here",
            "'cryptsetup open' it, and give the device in /dev/mapper as the image.",
        )
    if fstype not in MOUNTABLE:
        what = f"holds '{fstype}'" if fstype else "holds no known file system"
        raise ConfigError(
            f"The partition '{designator}' {what}", f"It may be one of {', '.join(MOUNTABLE)}."
        )


def _is_newer(designator: str, entry: TableEntry, before: Partition) -> bool:
    """Say whether a partition wins over the one before: of root and /usr the newer label does."""
    versioned = designator.partition("-")[0] in ("root", "usr")
    return versioned and compare_versions(entry.label, before.label) > 0


def _refuse_overlap(partitions: Iterable[Partition]) -> None:
    """Refuse partitions that share sectors: two file systems there would spoil each other."""
    ordered = sorted(partitions, key=lambda p: p.offset)
    for number, other in enumerate(ordered[1:]):
        one = ordered[number]
        if one.offset + one.size > other.offset:
            raise ConfigError(f"The partitions '{one.designator}' and '{other.designator}' overlap")
