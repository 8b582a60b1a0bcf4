"""File systems that grow while they are mounted: ext4, XFS and btrfs."""

from __future__ import annotations

import fcntl
import os
import struct

from machinectl_py.kernel.libc import raise_errno

_BLKGETSIZE64 = 0x80081272  # <linux/fs.h>
_EXT4_IOC_RESIZE_FS = 0x40086610  # <linux/ext4.h>
_BTRFS_IOC_RESIZE = 0x50009403  # <linux/btrfs.h>
# <xfs/xfs_fs.h>
_XFS_IOC_FSGEOMETRY_V1 = 0x80705864
_XFS_IOC_FSGROWFSDATA = 0x4010586E
_XFS_GEOMETRY = struct.Struct("=8IQ72x")  # blocksize … imaxpct (the eighth), datablocks


def grow_filesystem(mount: int, fstype: str, device: int) -> None:
    """Let a file system fill its block device; nothing for one of another type.

    Args:
        mount: descriptor of a mount of it, writable.
        fstype: as mount(2) names it.
        device: descriptor of the block device.

    Raises:
        OSError: with errno and "ioctl …".
    """
    size: int = struct.unpack("=Q", fcntl.ioctl(device, _BLKGETSIZE64, bytes(8)))[0]
    root = os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if fstype == "ext4":
            blocks = size // os.fstatvfs(root).f_bsize
            fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, struct.pack("=Q", blocks))
        elif fstype == "btrfs":
            fcntl.ioctl(root, _BTRFS_IOC_RESIZE, bytearray(struct.pack("=q4088s", 0, b"max")))
        elif fstype == "xfs":
            _grow_xfs(root, size)
    except OSError as error:
        raise_errno(error.errno or 0, f"ioctl to grow {fstype}")
    finally:
        os.close(root)


def _grow_xfs(root: int, size: int) -> None:
    fields = _XFS_GEOMETRY.unpack(
        fcntl.ioctl(root, _XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY.size))
    )
    block_size, inodes_percent, blocks = fields[0], fields[7], fields[8]
    if size // block_size > blocks:
        fcntl.ioctl(
            root, _XFS_IOC_FSGROWFSDATA, struct.pack("=QI4x", size // block_size, inodes_percent)
        )
