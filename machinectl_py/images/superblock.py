"""Which file system is at a place of a disk, by the magic numbers of its superblock.

Ten magics instead of blkid(8): it is a process of 5 ms per partition on the way of every
boot, and what is found is mounted as exactly that type, so the kernel checks the rest.
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError
from machinectl_py.images.partition_table import read_at

LUKS = "crypto_LUKS"
VERITY_HASH = "DM_verity_hash"
SWAP = "swap"
# What systemd mounts from images, and f2fs; other drivers are less hardened against bad images.
MOUNTABLE = ("btrfs", "erofs", "ext4", "f2fs", "squashfs", "vfat", "xfs")
ALWAYS_READ_ONLY = ("erofs", "squashfs")
# offset, magic, type; ext2 and ext3 are mounted by the driver of ext4.
_MAGICS = (
    (0, b"XFSB", "xfs"),
    (0, b"hsqs", "squashfs"),
    (0, b"LUKS\xba\xbe", LUKS),
    (0, b"verity\0\0", VERITY_HASH),
    (0x438, b"\x53\xef", "ext4"),
    (0x400, b"\xe2\xe1\xf5\xe0", "erofs"),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs"),
    (0xFF6, b"SWAPSPACE2", SWAP),
    (0x10040, b"_BHRfS_M", "btrfs"),
)
_FRONT = 0x10048
_FAT_MAGICS = ((0x36, b"FAT12   "), (0x36, b"FAT16   "), (0x52, b"FAT32   "))


def probe_filesystem(fd: int, offset: int = 0, size: int = 1 << 62) -> str:
    """Return the file system at an offset as mount(2) names it, or another type of blkid's.

    Args:
        fd: of the disk.
        offset: of the partition, in bytes.
        size: of the partition, in bytes; nothing beyond is looked at.

    Returns:
        The type; "" if none of those is there.

    Raises:
        ConfigError: two are there, so it cannot be told what the data is.
        OSError: the medium cannot be read.
    """
    front = read_at(fd, offset, min(_FRONT, size))
    found = [name for at, magic, name in _MAGICS if front[at : at + len(magic)] == magic]
    if front[510:512] == b"\x55\xaa" and any(
        front[at : at + len(magic)] == magic for at, magic in _FAT_MAGICS
    ):
        found.append("vfat")
    if len(found) > 1:
        raise ConfigError(
            f"It holds the marks of both {found[0]} and {found[1]}",
            "'wipefs' shows and removes what is left of a former file system.",
        )
    return found[0] if found else ""
