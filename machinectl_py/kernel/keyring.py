"""Keys of the kernel's key retention service; keyrings(7), add_key(2)."""

from __future__ import annotations

import ctypes
import os

from machinectl_py.kernel.libc import check, libc

_NR_ADD_KEY = {"x86_64": 248, "s390x": 278, "ppc64le": 269}
_NR_ADD_KEY_GENERIC = 217  # <asm-generic/unistd.h>
_KEY_SPEC_THREAD_KEYRING = -1  # <linux/keyctl.h>


def add_user_key(description: str, payload: bytes) -> int:
    """Add a key of the type "user" to this thread's keyring, which ends with it.

    Args:
        description: by which the kernel finds it.
        payload: at most 32767 bytes.

    Returns:
        The key's serial number.

    Raises:
        OSError: with errno, "add_key" and the description; ENOSYS without keys in this kernel.
    """
    result = libc.syscall(
        _NR_ADD_KEY.get(os.uname().machine, _NR_ADD_KEY_GENERIC),
        b"user",
        description.encode(),
        payload,
        ctypes.c_size_t(len(payload)),
        _KEY_SPEC_THREAD_KEYRING,
    )
    return check(result, "add_key", description)
