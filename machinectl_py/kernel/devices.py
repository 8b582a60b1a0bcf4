"""Device nodes: what a host has, and whether new ones can be made and used."""

from __future__ import annotations

import os
import stat

from machinectl_py.kernel.filesystem import make_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_S_IFCHR = 0o20000
_NULL = os.makedev(1, 3)


def character_device(path: str) -> tuple[int, int] | None:
    """Return permissions and device number of the character device at `path`, None if it is none.

    Links are followed, as a host may have its nodes anywhere.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(status.st_mode):
        return None
    return stat.S_IMODE(status.st_mode), status.st_rdev


def can_make_devices(numbers: Iterable[int]) -> bool:
    """Say whether this process can make nodes of character devices, and nodes it makes be opened.

    Not without CAP_MKNOD, nor in a user namespace, where file systems are mounted as with
    "nodev"; nor where a device cgroup denies either. Tried out, on a tmpfs that is mounted
    nowhere, so that the host sees nothing of it; mknod(2), fsmount(2). Opened is the null
    device alone: others do things when they are opened.

    Args:
        numbers: of the devices, as `os.makedev` returns them.
    """
    try:
        directory = make_filesystem("tmpfs")
    except OSError:
        return False
    try:
        for number in numbers:
            os.mknod(f"{number}", _S_IFCHR | 0o600, number, dir_fd=directory)
        os.mknod("null", _S_IFCHR | 0o600, _NULL, dir_fd=directory)
        os.close(os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=directory))
    except OSError:
        return False
    finally:
        os.close(directory)
    return True
