"""Paths inside a root, resolved by the kernel so that no symbolic link leaves it; openat2(2)."""

from __future__ import annotations

import ctypes
import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc

# The kernel refuses ".." with EAGAIN if anything on the host was mounted or renamed meanwhile.
_ATTEMPTS = 128


class _OpenHow(ctypes.Structure):
    """`struct open_how` of <linux/openat2.h>."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_in_root(root: int | str, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as a process whose root is `root` would; close-on-exec.

    Absolute links, and `..` above the root, stay inside (RESOLVE_IN_ROOT), and links of /proc
    that point anywhere are refused (RESOLVE_NO_MAGICLINKS).

    Args:
        root: a directory, as a path or a descriptor.
        path: the path inside.
        flags: O_ flags of open(2).
        mode: permissions of a file that O_CREAT makes.

    Raises:
        OSError: with errno, "openat2" and the path.
    """
    directory = root if isinstance(root, int) else os.open(root, os.O_PATH | os.O_CLOEXEC)
    how = _OpenHow(
        flags=flags | os.O_CLOEXEC,
        mode=mode,
        resolve=const.RESOLVE_IN_ROOT | const.RESOLVE_NO_MAGICLINKS,
    )
    try:
        return check(_openat2(directory, path, how), "openat2", path)
    finally:
        if directory is not root:
            os.close(directory)


def _openat2(directory: int, path: str, how: _OpenHow) -> int:
    attempts = 0
    while True:
        result: int = libc.syscall(
            const.NR_openat2,
            directory,
            os.fsencode(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        attempts += 1
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN or attempts == _ATTEMPTS:
            return result


def make_in_root(root: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """Return an O_PATH descriptor of `path` inside `root`, made first where it is missing.

    Missing parents are made as directories of mode 0755. Each part is resolved within the
    root, so that a link planted there cannot lead the making outside.

    Raises:
        OSError: with errno and the path; ENOTDIR or EISDIR if something else stands there.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for count in range(1, len(parts) + 1):
        try:
            os.close(open_in_root(root, "/".join(parts[:count]), os.O_PATH))
        except FileNotFoundError:
            last = count == len(parts)
            parent = open_in_root(
                root, "/".join(parts[: count - 1]) or ".", os.O_PATH | os.O_DIRECTORY
            )
            try:
                _make(parent, parts[count - 1], directory or not last, mode if last else 0o755)
            finally:
                os.close(parent)
    kind = os.O_DIRECTORY if directory else 0
    return open_in_root(root, "/".join(parts) or ".", os.O_PATH | kind)


def _make(parent: int, name: str, directory: bool, mode: int) -> None:
    if directory:
        os.mkdir(name, mode, dir_fd=parent)
    else:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, mode, dir_fd=parent))
