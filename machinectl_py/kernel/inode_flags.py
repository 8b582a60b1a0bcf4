"""The flags of chattr(1); ioctl_iflags(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

IMMUTABLE = 0x10  # FS_IMMUTABLE_FL of <linux/fs.h>
_GET, _SET = 0x80086601, 0x40086602
_FLAGS = struct.Struct("l")
_NONE = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS)


def is_immutable(path: str) -> bool:
    """Say whether a file or directory cannot be changed; False where there are no flags.

    Raises:
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return bool(_get(fd) & IMMUTABLE)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return False
    finally:
        os.close(fd)


def set_immutable(path: str, on: bool) -> bool:
    """Let a file or directory be changed no more, or again; False if its file system cannot.

    Raises:
        OSError: with errno and the path; EROFS, EPERM.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _get(fd)
        wanted = flags | IMMUTABLE if on else flags & ~IMMUTABLE
        if wanted != flags:
            fcntl.ioctl(fd, _SET, _FLAGS.pack(wanted))
    except OSError as error:
        if error.errno not in _NONE:
            raise OSError(error.errno, f"ioctl: {error.strerror}", path) from error
        return False
    finally:
        os.close(fd)
    return True


def _get(fd: int) -> int:
    flags: int = _FLAGS.unpack(fcntl.ioctl(fd, _GET, bytes(_FLAGS.size)))[0]
    return flags
