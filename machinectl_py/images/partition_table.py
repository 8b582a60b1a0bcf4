"""Partition tables, read from a descriptor without trust in a single byte of them.

GPT as the UEFI specification has it (both headers, their checksums), and the four entries of
an MBR. Nothing is mounted, attached or written here.
"""

from __future__ import annotations

import binascii
import os
import struct

from machinectl_py.errors import ConfigError
from machinectl_py.record import Record

SECTOR_SIZES = (512, 1024, 2048, 4096)
_SIGNATURE = b"EFI PART"
# signature, revision, header_size, header_crc, reserved, my_lba, alternate_lba, first_usable,
# last_usable, disk_guid, entries_lba, entry_count, entry_size, entries_crc
_HEADER = struct.Struct("<8sIIII4Q16sQIII")
# type, unique GUID, first and last LBA, attributes, name
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MAX_ENTRIES_BYTES = 1 << 20  # 128 entries of 128 bytes are usual: 16 KiB
_MBR_ENTRY = struct.Struct("<B3xB3xII")
_MBR_SECTOR = 512
_MBR_TABLE = 446
_GPT_PROTECTIVE = 0xEE


class TableEntry(Record):
    """A partition as its table has it."""

    number: int  # from 1
    offset: int  # bytes
    size: int  # bytes
    type: str  # UUID in lower case, or of an MBR two hexadecimal digits
    uuid: str = ""
    label: str = ""
    attributes: int = 0  # of GPT
    bootable: bool = False  # of MBR


class Table(Record):
    """A partition table."""

    kind: str  # "gpt" or "mbr"
    sector_size: int
    entries: tuple[TableEntry, ...]


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return `size` bytes at an offset, fewer at the end of the file.

    Raises:
        OSError: the medium cannot be read.
    """
    data = b""
    while len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def disk_size(fd: int) -> int:
    """Return the size of a file or block device in bytes."""
    return os.lseek(fd, 0, os.SEEK_END)


def read_gpt(fd: int, *, backup: bool = True) -> Table | None:
    """Return the GPT of a disk by the first header that is whole, or None if it has none.

    Args:
        fd: of the disk.
        backup: the header at the end counts too; on a disk that was made a file system since,
            it may be left over.

    Raises:
        ConfigError: there is one, and it is damaged.
        OSError: the medium cannot be read.
    """
    size = disk_size(fd)
    damage = ""
    for sector in SECTOR_SIZES:
        for lba in (1, size // sector - 1) if backup else (1,):
            if lba < 1 or read_at(fd, lba * sector, 8) != _SIGNATURE:
                continue
            try:
                return _gpt_at(fd, size, sector, lba)
            except ConfigError as error:
                damage = damage or error.message
    if damage:
        raise ConfigError(damage, "'sgdisk --verify' or 'sfdisk --verify' tells more.")
    return None


def _gpt_at(fd: int, size: int, sector: int, lba: int) -> Table:
    block = read_at(fd, lba * sector, sector)
    if len(block) < _HEADER.size:
        raise ConfigError("The GPT header is cut off")
    fields = _HEADER.unpack_from(block)
    header_size, header_crc, my_lba = fields[2], fields[3], fields[5]
    entries_lba, count, entry_size, entries_crc = fields[10:14]
    if not _HEADER.size <= header_size <= len(block):
        raise ConfigError("The GPT header has an impossible size")
    if binascii.crc32(block[:16] + bytes(4) + block[20:header_size]) != header_crc:
        raise ConfigError("The checksum of the GPT header is wrong")
    if my_lba != lba:
        raise ConfigError("The GPT header is not where it says that it is")
    if entry_size < _ENTRY.size or entry_size % 8 or count * entry_size > _MAX_ENTRIES_BYTES:
        raise ConfigError("The GPT's entries have an impossible size")
    if entries_lba * sector + count * entry_size > size:
        raise ConfigError("The GPT's entries lie beyond the end of the image")
    data = read_at(fd, entries_lba * sector, count * entry_size)
    if len(data) < count * entry_size or binascii.crc32(data) != entries_crc:
        raise ConfigError("The checksum of the GPT's entries is wrong")
    entries = []
    for number in range(1, count + 1):
        entry = _gpt_entry(number, data[(number - 1) * entry_size :], sector, size)
        if entry is not None:
            entries.append(entry)
    return Table(kind="gpt", sector_size=sector, entries=tuple(entries))


def _gpt_entry(number: int, data: bytes, sector: int, size: int) -> TableEntry | None:
    kind, uuid, first, last, attributes, name = _ENTRY.unpack_from(data)
    if not any(kind):
        return None
    if first > last or first < 2 or (last + 1) * sector > size:
        raise ConfigError(f"Partition {number} lies outside the image")
    return TableEntry(
        number=number,
        offset=first * sector,
        size=(last + 1 - first) * sector,
        type=_guid(kind),
        uuid=_guid(uuid),
        label=name.decode("utf-16-le", "replace").partition("\0")[0],
        attributes=attributes,
    )


def _guid(raw: bytes) -> str:
    """Return a UUID as text; the first three parts are little-endian."""
    first, second, third = struct.unpack_from("<IHH", raw)
    return f"{first:08x}-{second:04x}-{third:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def read_mbr(fd: int) -> Table | None:
    """Return the primary partitions of an MBR, or None if the disk has none.

    Raises:
        ConfigError: one lies outside the disk.
        OSError: the medium cannot be read.
    """
    size, boot = disk_size(fd), read_at(fd, 0, _MBR_SECTOR)
    if len(boot) < _MBR_SECTOR or boot[510:] != b"\x55\xaa":
        return None
    entries = []
    for number in range(1, 5):
        at = _MBR_TABLE + (number - 1) * _MBR_ENTRY.size
        status, kind, start, sectors = _MBR_ENTRY.unpack_from(boot, at)
        if status not in (0, 0x80) or kind == _GPT_PROTECTIVE:
            return None  # no MBR, or the guard of a GPT that is not there
        if not kind or not sectors:
            continue
        if not start or (start + sectors) * _MBR_SECTOR > size:
            raise ConfigError(f"Partition {number} lies outside the image")
        entries.append(
            TableEntry(
                number=number,
                offset=start * _MBR_SECTOR,
                size=sectors * _MBR_SECTOR,
                type=f"{kind:02x}",
                bootable=status == 0x80,
            )
        )
    return Table(kind="mbr", sector_size=_MBR_SECTOR, entries=tuple(entries)) if entries else None
