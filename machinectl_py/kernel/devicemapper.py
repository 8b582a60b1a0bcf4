"""Device-mapper devices by /dev/mapper/control; <linux/dm-ioctl.h>, dm-verity of the kernel.

Made without libdevmapper: three calls are all that a verity device takes.
"""

from __future__ import annotations

import fcntl
import os
import struct

from machinectl_py.kernel.libc import raise_errno
from machinectl_py.kernel.loop import open_block_device

CONTROL = "/dev/mapper/control"
# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr,
# padding, dev, name, uuid, data
HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")
# struct dm_target_spec: sector_start, length, status, next, target_type
TARGET = struct.Struct("=QQiI16s")
_VERSION = (4, 0, 0)
_DEV_CREATE, _DEV_REMOVE, _DEV_SUSPEND, _TABLE_LOAD = 3, 4, 6, 9
_READONLY = 1 << 0
_DEFERRED_REMOVE = 1 << 17
_SECTOR = 512


def has_device_mapper() -> bool:
    """Say whether this kernel has the device mapper, and we its control node."""
    return os.path.exists(CONTROL)


def create_device(
    name: str, uuid: str, target: str, parameters: str, *, sectors: int, read_only: bool
) -> int:
    """Make a device of one target; return it open, close-on-exec.

    It is marked for removal by the kernel at its last close, so that nothing needs to be undone.

    Args:
        name: unique on this host, at most 127 bytes.
        uuid: idem, at most 128 bytes.
        target: such as "verity"; the kernel loads its module.
        parameters: of the target.
        sectors: length in units of 512 bytes.
        read_only: no write goes through.

    Raises:
        OSError: with errno, "ioctl DM_…" and the name; FileNotFoundError without a control node.
    """
    flags = _READONLY if read_only else 0
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        answer = _call(control, _DEV_CREATE, "DM_DEV_CREATE", name, uuid=uuid)
        try:
            table = table_of(target, parameters, sectors)
            _call(control, _TABLE_LOAD, "DM_TABLE_LOAD", name, flags=flags, table=table)
            _call(control, _DEV_SUSPEND, "DM_DEV_SUSPEND", name)  # without the flag: resume
            number = _device_number(HEADER.unpack_from(answer)[10])
            path = f"/dev/dm-{os.minor(number)}"
            device = open_block_device(number, path, os.O_RDONLY if read_only else os.O_RDWR)
        except OSError:
            _call(control, _DEV_REMOVE, "DM_DEV_REMOVE", name)
            raise
        _call(control, _DEV_REMOVE, "DM_DEV_REMOVE", name, flags=_DEFERRED_REMOVE)
        return device
    finally:
        os.close(control)


def table_of(target: str, parameters: str, sectors: int) -> bytes:
    """Return a table of one target, as DM_TABLE_LOAD wants it after its header."""
    text = parameters.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return TARGET.pack(0, sectors, 0, TARGET.size + len(text), target.encode()) + text


def _call(
    control: int,
    number: int,
    call: str,
    name: str,
    *,
    uuid: str = "",
    flags: int = 0,
    table: bytes = b"",
) -> bytearray:
    head = HEADER.pack(
        *_VERSION,
        HEADER.size + len(table),
        HEADER.size,
        1 if table else 0,
        0,
        flags,
        0,
        0,
        0,
        name.encode(),
        uuid.encode(),
    )
    data = bytearray(head + table)
    request = 3 << 30 | HEADER.size << 16 | 0xFD << 8 | number  # _IOWR(DM_IOCTL, number, …)
    try:
        fcntl.ioctl(control, request, data)
    except OSError as error:
        raise_errno(error.errno or 0, f"ioctl {call}", name)
    return data


def _device_number(encoded: int) -> int:
    """Return a device number of the kernel's "huge" encoding as this C library has it."""
    major = encoded >> 8 & 0xFFF
    minor = encoded & 0xFF | encoded >> 12 & 0xFFF00
    return os.makedev(major, minor)
