"""New file systems as detached mounts: fsopen(2), fsconfig(2), fsmount(2).

Such a mount is in no mount namespace until move_mount(2) attaches it, so one process can make
what another mounts; which user namespace owns the file system is decided where it is made.
"""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc

# <linux/mount.h>
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6


def make_filesystem(
    fstype: str, options: tuple[tuple[str, str], ...] = (), attributes: int = 0
) -> int:
    """Return a detached mount of a new file system, as a descriptor, close-on-exec.

    Args:
        fstype: as in /proc/filesystems.
        options: of the file system, as ("mode", "0755"), or ("ro", "") for a flag.
        attributes: MOUNT_ATTR_ flags of the mount.

    Raises:
        OSError: with errno, the call and the type or option.
    """
    context = check(
        libc.syscall(const.NR_fsopen, fstype.encode(), _FSOPEN_CLOEXEC), "fsopen", fstype
    )
    try:
        for key, value in options:
            name, text = key.encode(), os.fsencode(value) or None
            how = _FSCONFIG_SET_STRING if text else _FSCONFIG_SET_FLAG
            result = libc.syscall(const.NR_fsconfig, context, how, name, text, 0)
            check(result, "fsconfig", f"{key}={value}")
        result = libc.syscall(const.NR_fsconfig, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        check(result, "fsconfig", fstype)
        result = libc.syscall(const.NR_fsmount, context, _FSMOUNT_CLOEXEC, attributes)
        return check(result, "fsmount", fstype)
    finally:
        os.close(context)
