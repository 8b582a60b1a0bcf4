"""Loop devices, and the nodes of block devices; loop(4)."""

from __future__ import annotations

import fcntl
import os
import struct
import time

from machinectl_py.kernel.libc import raise_errno

# <linux/loop.h>
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
# struct loop_config: fd, block_size, then struct loop_info64 of which lo_offset, lo_sizelimit
# and lo_flags are ours to set.
_CONFIG = struct.Struct("=II24xQQ12xI64x64x32x16x64x")

LOOP_CONTROL = "/dev/loop-control"
LOOP_MAJOR = 7
_EBUSY, _ENOENT = 16, 2


def attach_loop(
    backing: int, *, offset: int = 0, size: int = 0, read_only: bool = False, block_size: int = 0
) -> int:
    """Attach a free loop device to a part of a file; return the device, open, close-on-exec.

    The kernel detaches it when the last that has it open or mounted lets go, so that nothing
    needs to be undone, whoever is killed (LO_FLAGS_AUTOCLEAR).

    Args:
        backing: descriptor of a file or block device; of mode O_RDWR unless `read_only`.
        offset: where the part begins, in bytes.
        size: of the part, in bytes; 0 is up to the end of the file.
        read_only: nothing is written to the file.
        block_size: logical block size of the device, in bytes; 0 is the kernel's choice, which
            since Linux 6.15 may be too large for a file system with small blocks: on XFS that
            shares extents it is 4096.

    Raises:
        OSError: with errno and the call; FileNotFoundError without loop devices in this kernel.
    """
    flags = _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO
    flags |= _LO_FLAGS_READ_ONLY if read_only else 0
    config = _CONFIG.pack(backing, block_size, offset, size, flags)
    mode = os.O_RDONLY if read_only else os.O_RDWR
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = open_block_device(os.makedev(LOOP_MAJOR, number), f"/dev/loop{number}", mode)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno == _EBUSY:  # another was faster: the next free one
                    continue
                raise_errno(error.errno or 0, "ioctl LOOP_CONFIGURE", f"/dev/loop{number}")
            return device
    finally:
        os.close(control)


def open_block_device(number: int, path: str, mode: int) -> int:
    """Open a block device by its node, or by one of our own where /dev has none.

    Args:
        number: as of `os.makedev`.
        path: where its node should be.
        mode: os.O_RDONLY or os.O_RDWR.

    Raises:
        OSError: with errno and the path.
    """
    flags = mode | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        node = f"{path}.{os.getpid()}"
        os.mknod(node, 0o600 | 0o060000, number)  # S_IFBLK
        try:
            return os.open(node, flags)
        finally:
            os.unlink(node)
    if os.fstat(fd).st_rdev != number:
        os.close(fd)
        raise_errno(_ENOENT, "open", path)
    return fd


def device_path(device: int) -> str:
    """Return a path by which mount(2) finds the block device that is open as `device`."""
    path = os.readlink(f"/proc/self/fd/{device}")
    try:
        if os.stat(path).st_rdev == os.fstat(device).st_rdev:
            return path
    except FileNotFoundError:  # our own node, which is gone
        pass
    return f"/proc/self/fd/{device}"


def wait_detached(number: int, path: str, *, timeout: float) -> bool:
    """Wait until a loop device is not attached to this file any more.

    Args:
        number: of the device.
        path: of the file, as it was attached.
        timeout: seconds.

    Returns:
        Whether it is detached.
    """
    end = time.monotonic() + timeout
    while _backing_file(number) == path:
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _backing_file(number: int) -> str:
    try:
        with open(f"/sys/block/loop{number}/loop/backing_file", encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except OSError:  # it is free
        return ""


def wait_unclaimed(path: str, *, timeout: float) -> bool:
    """Wait until no file system is mounted from a block device; say whether that is so.

    Args:
        path: of the device.
        timeout: seconds.

    Raises:
        OSError: it cannot be opened.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != _EBUSY:
                raise
        else:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
