"""Removes the layers that nobody stands on."""

from __future__ import annotations

import errno
import os

from machinectl_py.images.records import StoreLock, all_machines
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.kernel.statfs import is_subvolume
from machinectl_py.layout import LAYERS_DIR, REMOVED_DIR, layer_path


def sweep() -> int:
    """Remove what no record names, and say how much that was.

    With the store's lock it is put out of sight, in an instant; without it, it is removed, by
    whoever comes first.

    Raises:
        PymachineError: a record is damaged, so that nobody knows what it stands on.
        OSError: with the path.
    """
    with StoreLock():
        put_aside()
    return remove_aside()


def put_aside() -> None:
    """Move the layers that no record names out of sight; the store's lock is held.

    Of a disk too full for that, they are removed at once.
    """
    unused = set(os.listdir(LAYERS_DIR))
    if unused:
        for machine in all_machines():
            unused -= machine.references()
    for layer in sorted(unused):
        try:
            os.rename(layer_path(layer), f"{REMOVED_DIR}/{layer}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            remove_any(layer_path(layer))


def remove_aside() -> int:
    """Remove what is out of sight, and say how much that was."""
    entries = os.listdir(REMOVED_DIR)
    for entry in entries:
        path = f"{REMOVED_DIR}/{entry}"
        if not is_being_made(path):
            remove_any(path)
    return len(entries)


def is_being_made(path: str) -> bool:
    """Say whether a process fills this directory: it holds its lock."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove_any(path: str) -> None:
    """Remove a tree or subvolume, or a directory with subvolumes in it; nothing if it is gone.

    Raises:
        OSError: with the path.
    """
    try:
        if os.path.isdir(path) and not os.path.islink(path) and is_subvolume(path):
            from machinectl_py.kernel import btrfs

            btrfs.delete(path)
        else:
            remove_tree(path)
    except FileNotFoundError:  # another removes it too
        pass
