"""Disk images made in memory: partition tables as their specifications have them."""

from __future__ import annotations

import binascii
import os
import struct
import uuid

SECTOR = 512
ENTRIES = 128
FIRST = 34  # the first sector behind header and entries
EXT4 = bytes(0x438) + b"\x53\xef"
SQUASHFS = b"hsqs"
EROFS = bytes(0x400) + b"\xe2\xe1\xf5\xe0"
VERITY = b"verity\0\0"


def memory(data: bytes) -> int:
    """Return a descriptor of a file with this content, in memory."""
    fd = os.memfd_create("image")
    os.write(fd, data)
    return fd


def entry(kind, *, sectors=256, content=EXT4, attributes=0, label="", number=None, at=0):
    """Return a partition: type UUID, size in sectors, what it begins with; 0: behind the last."""
    return (kind, sectors, content, attributes, label, number or str(uuid.uuid4()), at)


def gpt(*partitions) -> bytearray:
    """Return a disk with a GPT of these partitions, both headers and the protective MBR."""
    end = FIRST + sum(p[1] for p in partitions)
    size = (end + FIRST) * SECTOR
    disk, table, free = bytearray(size), bytearray(ENTRIES * 128), FIRST
    for number, (kind, sectors, content, attributes, label, own, place) in enumerate(partitions):
        at = place or free
        fields = (uuid.UUID(kind).bytes_le, uuid.UUID(own).bytes_le, at, at + sectors - 1)
        name = label.encode("utf-16-le").ljust(72, b"\0")
        struct.pack_into("<16s16sQQQ72s", table, number * 128, *fields, attributes, name)
        disk[at * SECTOR : at * SECTOR + len(content)] = content
        free += sectors
    last = size // SECTOR - 1
    disk[510:512], disk[446 + 4] = b"\x55\xaa", 0xEE
    struct.pack_into("<II", disk, 446 + 8, 1, last)
    for lba, other, where in ((1, last, 2), (last, 1, end)):
        disk[where * SECTOR : where * SECTOR + len(table)] = table
        disk[lba * SECTOR : lba * SECTOR + 92] = _header(lba, other, where, end, table)
    return disk


def _header(lba, other, where, end, table) -> bytes:
    front = struct.pack("<8sII", b"EFI PART", 0x10000, 92)
    back = struct.pack("<I4Q16sQ", 0, lba, other, FIRST, end - 1, bytes(16), where)
    back += struct.pack("<III", ENTRIES, 128, binascii.crc32(table))
    checksum = binascii.crc32(front + bytes(4) + back)
    return front + struct.pack("<I", checksum) + back


def mbr(*partitions) -> bytearray:
    """Return a disk with an MBR of (type, bootable, content), 256 sectors each."""
    disk = bytearray((1 + 256 * len(partitions)) * SECTOR)
    disk[510:512] = b"\x55\xaa"
    for number, (kind, bootable, content) in enumerate(partitions):
        at = 1 + 256 * number
        values = (0x80 if bootable else 0, kind, at, 256)
        struct.pack_into("<B3xB3xII", disk, 446 + 16 * number, *values)
        disk[at * SECTOR : at * SECTOR + len(content)] = content
    return disk
