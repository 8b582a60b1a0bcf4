"""Images as they lie in /var/lib/machines: removed, renamed, marked, under nobody's feet."""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError, UnsupportedError
from machinectl_py.images import store, sweep
from machinectl_py.images.held import ImageLock, Stopped
from machinectl_py.images.records import StoreLock, find_machine, sync_directory, users_of
from machinectl_py.kernel.inode_flags import set_immutable
from machinectl_py.kernel.statfs import is_subvolume

# Of what is made or removed beside images; what is not locked was left by one who was killed.
ASIDE = ".#pymachine."


def refuse_used(path: str, what: str) -> None:
    """Refuse a change of an image that machines stand on; the store's lock is held.

    Args:
        path: of the image.
        what: that is done to it: "removed".

    Raises:
        ConflictError: there are such machines; names them.
    """
    if users := users_of(path):
        names = ", ".join(machine.name for machine in users)
        raise ConflictError(
            f"The image {path} cannot be {what}: machines stand on it: {names}",
            "'pymachine remove' removes a machine.",
        )


def remove_image(name: str) -> None:
    """Remove an image.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is in use, or machines stand on it.
        UnsupportedError: it is the vendor's.
        OSError: with the path.
    """
    path = store.find_root(name)
    refuse_vendors(path)
    aside = f"{os.path.dirname(path)}/{ASIDE}{os.urandom(8).hex()}"
    with Stopped(name), ImageLock(path):
        with StoreLock():
            refuse_used(path, "removed")
            unmark(path)
            os.rename(path, aside)
        sync_directory(os.path.dirname(path))
    sweep.remove_any(aside)


def refuse_vendors(path: str) -> None:
    """Refuse to change an image that came with the distribution.

    Raises:
        UnsupportedError: it did.
    """
    if path.startswith("/usr/"):
        raise UnsupportedError(f"{path} came with the system, and is not to be changed")


def mark(path: str) -> None:
    """Mark an image read-only, as `machinectl read-only` does; nothing where there is no mark.

    Raises:
        OSError: with the path.
    """
    from machinectl_py.kernel import btrfs

    if not os.path.isdir(path):
        os.chmod(path, os.stat(path).st_mode & ~0o222)
    elif is_subvolume(path):
        btrfs.set_read_only(path, True)
    else:
        set_immutable(path, True)


def unmark(path: str) -> None:
    """Let an image be changed again.

    Raises:
        OSError: with the path.
    """
    from machinectl_py.kernel import btrfs

    if not os.path.isdir(path):
        os.chmod(path, os.stat(path).st_mode | 0o200)
    elif is_subvolume(path):
        btrfs.set_read_only(path, False)
    else:
        set_immutable(path, False)


def remove_named(name: str) -> str:
    """Remove a machine or, if there is none of the name, an image; or NAME@TAG, a snapshot.

    Return which it was.

    Raises:
        NotFoundError: there is neither.
        ConflictError: it runs, or is in use.
    """
    name, at, tag = name.partition("@")
    store.check_name(name)
    if at:
        from machinectl_py.images.snapshots import forget

        forget(name, tag)
        return "snapshot"
    if find_machine(name) is not None:
        from machinectl_py.images.machines import remove_machine

        remove_machine(name)
        return "machine"
    remove_image(name)
    return "image"
