"""Files that share their extents until one is written to; ioctl_ficlone(2)."""

from __future__ import annotations

import errno
import fcntl
import os

_FICLONE = 0x40049409
# What the kernel answers where extents cannot be shared.
NOT_SHARED = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY)


def clone_file(source: str, target: str, mode: int = 0o600) -> None:
    """Make `target`, a file that shares all extents of `source`.

    Raises:
        OSError: with errno and the path, and nothing is made; one of NOT_SHARED where the file
            system cannot do it; EEXIST, there is something.
    """
    from_ = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        into = os.open(target, flags, mode)
        try:
            fcntl.ioctl(into, _FICLONE, from_)
        except OSError as error:
            os.unlink(target)
            raise OSError(error.errno, f"ioctl FICLONE: {error.strerror}", target) from error
        finally:
            os.close(into)
    finally:
        os.close(from_)
