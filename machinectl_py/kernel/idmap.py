"""User namespaces and maps of ids, of processes and of mounts.

See user_namespaces(7) and mount_setattr(2), "ID-mapped mounts".

A map is a tuple of rows as in /proc/PID/uid_map: the first id inside, the first outside, how
many. In the map of a mount, "inside" is what the file system stores, "outside" what is seen.
"""

from __future__ import annotations

import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.kernel.namespaces import clone3
from machinectl_py.kernel.procfs import mountinfo
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

Row = tuple[int, int, int]
_ALL_IDS = (1 << 32) - 1  # (uid_t) -1 is no id


class IdMaps(Record):
    """The maps of a user namespace."""

    uids: tuple[Row, ...]
    gids: tuple[Row, ...]


def same_maps(*rows: Row) -> IdMaps:
    """Return maps whose groups are mapped as the users are."""
    return IdMaps(uids=rows, gids=rows)


def write_maps(pid: int, maps: IdMaps) -> None:
    """Write the maps of the user namespace of a process; it can be done once.

    Raises:
        OSError: EPERM, there are maps already, or the ids are not the caller's; EINVAL, the
            rows overlap.
    """
    for name, rows in (("gid_map", maps.gids), ("uid_map", maps.uids)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise OSError(
                error.errno, f"write {text!r}: {error.strerror}", f"/proc/{pid}/{name}"
            ) from error
        finally:
            os.close(fd)


def make_user_namespace(maps: IdMaps) -> int:
    """Return a descriptor of a new user namespace with these maps, in which nobody lives.

    Raises:
        OSError: with errno; ENOSPC where user.max_user_namespaces is reached.
    """
    wait, go = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone3(const.CLONE_NEWUSER)
    if pid == 0:
        os.close(go)
        os.read(wait, 1)
        os._exit(0)
    try:
        write_maps(pid, maps)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (go, wait, pidfd):
            os.close(fd)
        os.waitpid(pid, 0)


def set_idmap(tree: int, user_namespace: int) -> None:
    """Have a detached mount, with all below it, show ids by the maps of a user namespace.

    Raises:
        OSError: EINVAL, a file system in it cannot; EPERM, it is one of a user namespace.
    """
    set_attributes(tree, const.MOUNT_ATTR_IDMAP, user_namespace=user_namespace)


def map_tree(tree: int, maps: IdMaps) -> None:
    """Have a detached mount, with all below it, show ids by these maps.

    Raises:
        OSError: as `make_user_namespace` and `set_idmap`.
    """
    namespace = make_user_namespace(maps)
    try:
        set_idmap(tree, namespace)
    finally:
        os.close(namespace)


def try_idmap(tree: int) -> bool:
    """Say whether a detached mount can show ids by maps; from then on it maps each to itself.

    For a mount of which no copy can be made, as those that are in no mount namespace.

    Raises:
        OSError: with errno, for another reason than the file system or its privileges.
    """
    try:
        namespace = make_user_namespace(same_maps((0, 0, _ALL_IDS)))
    except OSError:
        return False
    try:
        return _takes_idmap(tree, namespace)
    finally:
        os.close(namespace)


def why_unmappable(path: str, *, recursive: bool = True) -> str:
    """Return why the ids of a tree cannot be mapped, "" if they can; mount_setattr(2).

    Raises:
        OSError: there is no such path.
    """
    found = unmappable(path, recursive=recursive)
    return ", ".join(f"{kind} at {place}" if place else kind for place, kind in found)


def unmappable(path: str, *, recursive: bool = True) -> tuple[tuple[str, str], ...]:
    """Return the mounts at `path`, and if recursive below, that cannot be idmapped.

    Returns:
        Of each its path and type: none if all can; ("", "user namespaces") where the kernel makes
        none.

    Raises:
        OSError: there is no such path.
    """
    try:
        namespace = make_user_namespace(same_maps((0, 1 << 16, 1 << 16)))
    except OSError:
        return (("", "user namespaces"),)
    try:
        if _can_idmap(path, namespace, recursive=recursive):
            return ()
        mounts = tuple(_mounts_below(path))
        if not recursive:
            return mounts[-1:]
        return tuple(mount for mount in mounts if not _can_idmap(mount[0], namespace)) or mounts
    finally:
        os.close(namespace)


def _can_idmap(path: str, namespace: int, *, recursive: bool = False) -> bool:
    tree = open_tree(path, recursive=recursive)
    try:
        return _takes_idmap(tree, namespace)
    finally:
        os.close(tree)


def _takes_idmap(tree: int, namespace: int) -> bool:
    try:
        set_idmap(tree, namespace)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def _mounts_below(path: str) -> Iterator[tuple[str, str]]:
    """Yield where `path` is mounted, with its type, and what is mounted below it."""
    holder = ("", "")
    for mount in mountinfo("self"):
        if f"{mount.target}/".startswith(f"{path.rstrip('/')}/") and mount.target != path:
            yield mount.target, mount.fstype
        elif f"{path}/".startswith(f"{mount.target.rstrip('/')}/"):
            # The longest path holds it, and of stacked mounts the last.
            holder = max(holder, (mount.target, mount.fstype), key=lambda found: len(found[0]))
            if mount.target == holder[0]:
                holder = (mount.target, mount.fstype)
    yield path, holder[1]


def become_root() -> None:
    """Become uid and gid 0 of the caller's user namespace, in no other group.

    Raises:
        OSError: with errno; EINVAL where 0 is not mapped.
    """
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
