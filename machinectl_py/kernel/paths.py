"""Paths inside a root, resolved by the kernel so that no symbolic link leaves it; openat2(2)."""

from __future__ import annotations

import ctypes
import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc, raise_errno

_MAX_LINKS = 40  # as the kernel's; path_resolution(7)
_MAX_TRIES = 1000  # openat2(2), EAGAIN


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
    try:
        resolve = const.RESOLVE_IN_ROOT | const.RESOLVE_NO_MAGICLINKS
        return _openat2(directory, path, flags, resolve, mode)
    finally:
        if directory is not root:
            os.close(directory)


def open_below(directory: int, name: str) -> int:
    """Open a directory in another one, close-on-exec; no link is followed, no mount entered.

    A subvolume of btrfs is no mount.

    Raises:
        OSError: with errno, "openat2" and the name; EXDEV, something is mounted there.
    """
    return _openat2(
        directory, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, const.RESOLVE_NO_XDEV
    )


def _openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    result = -1
    for _ in range(_MAX_TRIES):
        result = libc.syscall(
            const.NR_openat2,
            directory,
            os.fsencode(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        # With ".." on the way, any rename or mount on the host meanwhile.
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return check(result, "openat2", path)


def make_in_root(
    root: int, path: str, *, directory: bool, mode: int = 0o755, follow: bool = False
) -> int:
    """Return an O_PATH descriptor of `path` inside `root`, made first where it is missing.

    Missing parents are made as directories of mode 0755. Each part is resolved within the
    root, so that a link planted there cannot lead the making outside.

    Args:
        root: descriptor of the directory.
        path: the path inside.
        directory: whether a directory is made, or an empty file.
        mode: permissions of what is made.
        follow: where a link leads to what is missing, make that.

    Raises:
        OSError: with errno and the path; ENOTDIR or EISDIR if something else stands there,
            EEXIST if that is a link that leads to what is missing.
    """
    parts = _split(path)
    count = links = 0
    while count < len(parts):
        count += 1
        try:
            os.close(open_in_root(root, "/".join(parts[:count]), os.O_PATH))
        except FileNotFoundError:
            last = count == len(parts)
            parent = open_in_root(
                root, "/".join(parts[: count - 1]) or ".", os.O_PATH | os.O_DIRECTORY
            )
            try:
                link = _read_link(parent, parts[count - 1]) if follow else ""
                if not link:
                    _make(parent, parts[count - 1], directory or not last, mode if last else 0o755)
            finally:
                os.close(parent)
            if link:
                links += 1
                if links > _MAX_LINKS:
                    raise_errno(errno.ELOOP, "openat2", path)
                before = [] if link.startswith("/") else parts[: count - 1]
                parts, count = [*before, *_split(link), *parts[count:]], 0
    kind = os.O_DIRECTORY if directory else 0
    return open_in_root(root, "/".join(parts) or ".", os.O_PATH | kind)


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _read_link(parent: int, name: str) -> str:
    """Return where a link leads; "" if there is none of that name."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return ""


def _make(parent: int, name: str, directory: bool, mode: int) -> None:
    if directory:
        os.mkdir(name, mode, dir_fd=parent)
    else:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, mode, dir_fd=parent))
