"""What of a machine's root a user namespace depends on: who owns it, can its ids be mapped."""

from __future__ import annotations

import os

from machinectl_py.config.spec import UsersSpec
from machinectl_py.kernel.chown_tree import BUSY_BASE, is_busy
from machinectl_py.kernel.idmap import why_unmappable
from machinectl_py.plan.id_ranges import FOREIGN_BASE, SIZE
from machinectl_py.plan.mount_facts import maps_all
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.plan.disk import ImageFacts
    from machinectl_py.plan.mount_facts import AnyMount


class RootFacts(Record):
    """The root, as far as a user namespace depends on it."""

    namespaces: bool = True  # the kernel makes user namespaces
    uid: int = 0  # owner of the root directory, as seen here
    gid: int = 0
    unmappable: str = ""  # why its ids cannot be mapped: a file system; "" if they can


def probe_root(root: str, users: UsersSpec) -> RootFacts:
    """Look at a root for a user namespace that is wished.

    Raises:
        OSError: the root cannot be looked at.
    """
    status = os.stat(root)
    namespaces = os.path.exists("/proc/self/ns/user")
    tries = namespaces and users.ownership in ("map", "auto", "foreign")
    return RootFacts(
        namespaces=namespaces,
        uid=BUSY_BASE if is_busy(status.st_uid) else status.st_uid,
        gid=BUSY_BASE if is_busy(status.st_uid) else status.st_gid,
        unmappable=why_unmappable(root) if tries else "",
    )


def image_root(image: ImageFacts) -> RootFacts:
    """Return what a user namespace depends on of a disk image that is looked into.

    Raises:
        OSError: the root cannot be looked at.
    """
    # Of an image that has nothing but /usr, the root is made for each start.
    status = os.stat(image.tree if image.disk.find("root") else f"{image.tree}/usr")
    return RootFacts(
        namespaces=os.path.exists("/proc/self/ns/user"),
        uid=status.st_uid,
        gid=status.st_gid,
        unmappable=image.unmappable,
    )


def default_users(root: str, layer: str = "", mounts: Iterable[AnyMount] = ()) -> UsersSpec:
    """Return the user namespace of a machine where nobody has said anything of it.

    That is a range of its own where the ids of the root can be mapped, and so need not be
    changed; else none. A root that has been given to a range before is left in it by neither.
    Directories of the host that are mounted are to look as without a user namespace.

    Args:
        root: the directory.
        layer: the directory of what the machine writes; "" where it writes to the root.
        mounts: what is to be mounted.
    """
    try:
        status = os.stat(root)
        if not os.path.isdir(root) or any(map(why_unmappable, filter(None, (root, layer)))):
            return UsersSpec()
    except OSError:  # the verb tells it
        return UsersSpec()
    return UsersSpec() if is_busy(status.st_uid) else _by_owner(status.st_uid, mounts)


def image_users(image: ImageFacts, mounts: Iterable[AnyMount] = ()) -> UsersSpec:
    """Return the same of a disk image that is looked into.

    Raises:
        OSError: the root cannot be looked at.
    """
    system = image.disk.system
    # Only that of the system has been tried.
    known = (system.fstype if system else "", "vfat", "")
    if image.unmappable or any(part.fstype not in known for part in image.disk.partitions):
        return UsersSpec()
    return _by_owner(image_root(image).uid, mounts)


def _by_owner(uid: int, mounts: Iterable[AnyMount]) -> UsersSpec:
    of_range = uid & ~(SIZE - 1)
    if of_range not in (0, FOREIGN_BASE) or not maps_all(mounts):
        return UsersSpec()
    mapped = UsersSpec(mode="pick", ownership="map", map_mounts=True)
    return mapped.replace(ownership="foreign") if of_range else mapped
