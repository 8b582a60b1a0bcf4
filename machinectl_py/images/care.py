"""Images as they lie in /var/lib/machines: removed, renamed, marked, under nobody's feet."""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError, UnsupportedError
from machinectl_py.images import store, sweep
from machinectl_py.images.beside import remove_beside, rename_beside
from machinectl_py.images.held import ASIDE, ImageLock, Stopped
from machinectl_py.images.records import (
    StoreLock,
    all_machines,
    find_machine,
    refuse_existing,
    rename_record,
    sync_directory,
    users_of,
    write_machine,
)
from machinectl_py.images.settings_files import remove_settings, rename_settings
from machinectl_py.kernel import procfs
from machinectl_py.kernel.inode_flags import set_immutable
from machinectl_py.kernel.statfs import is_subvolume


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


def refuse_mounted(path: str, *, below: bool) -> None:
    """Refuse a tree on which, or `below` which too, something is mounted: that is not ours.

    Raises:
        ConflictError: it is, as this mount namespace has it.
    """
    for mount in procfs.mountinfo("self"):
        if mount.target == path or (below and mount.target.startswith(f"{path}/")):
            raise ConflictError(
                f"Something is mounted on {mount.target}",
                f"'umount {mount.target}', then try again.",
            )


def remove_image(name: str) -> None:
    """Remove an image; of one that is a symbolic link, the link: what it leads to is not ours.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is in use, or machines stand on it.
        UnsupportedError: it is the vendor's.
        OSError: with the path.
    """
    path, entry = store.find_root(name), store.find_entry(name)
    refuse_vendors(entry)
    aside = f"{os.path.dirname(entry)}/{ASIDE}{os.urandom(8).hex()}"
    with Stopped(name), ImageLock(path):
        with StoreLock():
            refuse_used(path, "removed")
            if entry == path:
                refuse_mounted(path, below=True)
                unmark(path)
            os.rename(entry, aside)
        remove_beside(entry)
        sync_directory(os.path.dirname(entry))
        if find_machine(name) is None:
            remove_settings(name, entry)
    sweep.remove_any(aside)


def rename(name: str, new: str) -> None:
    """Give a machine or, if there is none of the name, an image another name.

    Raises:
        ConfigError: a name is not valid.
        NotFoundError: there is neither.
        ConflictError: it runs or is in use, or there is one of the other name.
        UnsupportedError: the image is the vendor's.
        OSError: with the paths.
    """
    store.check_name(name)
    store.check_name(new)
    with Stopped(name, new):
        refuse_existing(new)
        machine = find_machine(name)
        if machine is None:
            _rename_image(name, new)
            return
        with StoreLock():
            rename_record(name, new)
            for other in all_machines():
                if other.image == name and other.base == machine.base and other.origin:
                    write_machine(other.replace(image=new))
        if not store.image_exists(name):
            rename_settings(name, new, machine.base)


def _rename_image(name: str, new: str) -> None:
    path, entry = store.find_root(name), store.find_entry(name)
    refuse_vendors(entry)
    directory, _, last = entry.rpartition("/")
    target = f"{directory}/{new}{'.raw' if last.endswith('.raw') else ''}"
    with ImageLock(path):
        with StoreLock():
            refuse_used(path, "renamed")
            refuse_mounted(entry, below=False)
            marked = entry == path and store.is_read_only(path)
            if marked:
                unmark(path)  # what is immutable cannot be renamed
            os.rename(entry, target)
            if marked:
                mark(target)
        rename_beside(entry, target)
        sync_directory(directory)
        rename_settings(name, new, entry)


def set_read_only(name: str, on: bool) -> None:
    """Mark a machine or, if there is none of the name, an image read-only, or let it change.

    A machine that is read-only is started with a root that nothing is written to.

    Raises:
        NotFoundError: there is neither.
        ConflictError: the image is in use, or machines stand on it.
        UnsupportedError: the image is the vendor's, or its file system has no such mark.
        OSError: with the path.
    """
    store.check_name(name)
    with Stopped(name), StoreLock():
        machine = find_machine(name)
        if machine is not None:
            write_machine(machine.replace(read_only=on))
            return
        path = store.find_root(name)
        refuse_vendors(path)
        if on:
            mark(path)
            if not store.is_read_only(path):
                raise UnsupportedError(
                    f"The file system of {path} has no mark for what is read-only"
                )
            for user in users_of(path):  # it stays so when they are gone
                write_machine(user.replace(marked=False))
            return
        refuse_used(path, "written to")
        with ImageLock(path):
            unmark(path)


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
    if not os.path.isdir(path):
        os.chmod(path, os.stat(path).st_mode & ~0o222)
    elif is_subvolume(path):
        from machinectl_py.kernel import btrfs

        btrfs.set_read_only(path, True)
    else:
        set_immutable(path, True)


def unmark(path: str) -> None:
    """Let an image be changed again.

    Raises:
        OSError: with the path.
    """
    if not os.path.isdir(path):
        os.chmod(path, os.stat(path).st_mode | 0o200)
    elif is_subvolume(path):
        from machinectl_py.kernel import btrfs

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
