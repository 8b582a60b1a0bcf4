"""What differs between two trees: what a machine has changed since its image, or a snapshot."""

from __future__ import annotations

import os
import stat

from machinectl_py.images.drivers import upper_of
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from machinectl_py.images.records import Machine

    ChangeKind = Literal["added", "changed", "removed"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1 << 20


class Difference(Record):
    """A path that is not as it was."""

    kind: ChangeKind
    path: str  # in the root
    type: str  # "file", "directory", "link", "device", "socket", "pipe": as it is now, or was


def differences(old: str, new: str, layers: tuple[str, ...] | None = None) -> Iterator[Difference]:
    """Yield what differs, in the order of the paths; below what is added or removed, nothing.

    Args:
        old: a directory.
        new: the directory as it is now.
        layers: directories outside of which nothing differs: what was written to an overlay; None
            if all is to be looked at.

    Raises:
        OSError: with the path.
    """
    above, below = os.open(old, os.O_RDONLY | os.O_DIRECTORY), os.open(new, os.O_RDONLY)
    try:
        yield from _compare(above, below, "", layers)
    finally:
        os.close(above)
        os.close(below)


def written_since(machine: Machine, layers: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the directories that a machine has written to since it was `layers`; None: unknown."""
    if machine.driver != "overlay":
        return None
    count = len(machine.layers) - len(layers)
    if count < 0 or machine.layers[count:] != layers:
        return None
    return tuple(map(upper_of, (machine.own, *machine.layers[:count])))


def _compare(old: int, new: int, path: str, layers: tuple[str, ...] | None) -> Iterator[Difference]:
    names = None
    if layers is not None:
        layers, names = _written(layers, path)
    if names is None:
        layers, names = None, {*os.listdir(old), *os.listdir(new)}
    for name in sorted(names):
        before, after = _status(old, name), _status(new, name)
        where = f"{path}/{name}"
        if before is None or after is None:
            known = before or after
            if known is not None:
                kind: ChangeKind = "added" if before is None else "removed"
                yield Difference(kind=kind, path=where, type=_type(known.st_mode))
            continue
        if _differs(old, new, name, before, after):
            yield Difference(kind="changed", path=where, type=_type(after.st_mode))
        if stat.S_ISDIR(before.st_mode) and stat.S_ISDIR(after.st_mode):
            one, other = (os.open(name, _DIRECTORY, dir_fd=fd) for fd in (old, new))
            try:
                yield from _compare(one, other, where, layers)
            finally:
                os.close(one)
                os.close(other)


def _written(layers: tuple[str, ...], path: str) -> tuple[tuple[str, ...], set[str] | None]:
    """Return the layers that have this directory, and the names in it; None: any name may differ.

    That is so where a layer's directory hides what is below, or shows another one; overlayfs.
    """
    found, names = [], set[str]()
    for layer in layers:
        place = f"{layer}{path}"
        try:
            marks = os.listxattr(place, follow_symlinks=False)
            entries = os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if "trusted.overlay.opaque" in marks or "trusted.overlay.redirect" in marks:
            return layers, None
        found.append(layer)
        names.update(entries)
    return tuple(found), names


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _type(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
        stat.S_IFSOCK: "socket",
        stat.S_IFIFO: "pipe",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def _differs(old: int, new: int, name: str, before: os.stat_result, after: os.stat_result) -> bool:
    """Say whether what has one name is another: by its type, owner, mode, or content."""
    fields = ("st_mode", "st_uid", "st_gid", "st_rdev")
    if any(getattr(before, field) != getattr(after, field) for field in fields):
        return True
    if stat.S_ISLNK(after.st_mode):
        return os.readlink(name, dir_fd=old) != os.readlink(name, dir_fd=new)
    if not stat.S_ISREG(after.st_mode):
        return False
    if before.st_size != after.st_size:
        return True
    return before.st_mtime_ns != after.st_mtime_ns and not _same_content(old, new, name)


def _same_content(old: int, new: int, name: str) -> bool:
    one, other = (_open(fd, name) for fd in (old, new))
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            block = first.read(_BLOCK)
            if block != second.read(_BLOCK):
                return False
            if not block:
                return True


def _open(directory: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
