"""What images and machines there are, and who stands on whom."""

from __future__ import annotations

import os

from machinectl_py.images import store
from machinectl_py.images.drivers import root_of, upper_of
from machinectl_py.images.records import all_machines, find_machine
from machinectl_py.kernel.statfs import is_subvolume
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.images.records import Machine

    Kind = Literal["directory", "subvolume", "raw", "overlay"]


class Image(Record):
    """An image, or a machine that was made of one."""

    name: str
    path: str  # of an image; of a machine the layer that it writes to
    type: Kind
    read_only: bool
    usage: int  # bytes on the disk that are its own; -1 where that takes a walk
    created: int  # CLOCK_REALTIME, microseconds; 0 where it is not known
    modified: int
    users: tuple[str, ...] = ()  # of an image: the machines that stand on it
    image: str = ""  # of a machine: what it was made from
    driver: str = ""
    snapshots: tuple[str, ...] = ()
    hidden: bool = False


def all_images(*, hidden: bool = False) -> tuple[Image, ...]:
    """Return images and machines, by name.

    Args:
        hidden: those whose name begins with a dot, too.
    """
    machines = all_machines()
    users: dict[str, list[str]] = {}
    for machine in machines:
        users.setdefault(machine.base, []).append(machine.name)
    found = [describe_machine(machine) for machine in machines]
    for name, path in store.image_paths(hidden=hidden):
        found.append(_describe(name, path, tuple(users.get(os.path.realpath(path), ()))))
    return tuple(sorted(found, key=lambda image: (image.name, bool(image.driver))))


def find_image(name: str) -> Image:
    """Return the machine of a name or, if there is none, the image.

    Raises:
        NotFoundError: there is neither.
    """
    store.check_name(name)
    machine = find_machine(name)
    if machine is not None:
        return describe_machine(machine)
    path = store.find_root(name)
    users = tuple(machine.name for machine in all_machines() if machine.base == path)
    return _describe(name, path, users)


def _describe(name: str, path: str, users: tuple[str, ...]) -> Image:
    status = os.stat(path)
    directory = os.path.isdir(path)
    kind: Kind = "raw"
    if directory:
        kind = "subvolume" if is_subvolume(path) else "directory"
    return Image(
        name=name,
        path=path,
        type=kind,
        read_only=bool(users) or store.is_read_only(path),
        usage=-1 if directory else status.st_blocks * 512,
        created=birth_time(path),
        modified=status.st_mtime_ns // 1000,
        users=users,
        hidden=name.startswith("."),
    )


def describe_machine(machine: Machine) -> Image:
    """Return how a machine is listed."""
    path = root_of(machine.driver, machine.base, machine.own)
    kind: Kind = "subvolume" if machine.driver == "btrfs" else "raw"
    if machine.driver == "overlay":
        kind, path = "overlay", upper_of(machine.own)
    return Image(
        name=machine.name,
        path=path,
        type=kind,
        read_only=machine.read_only,
        usage=disk_usage(path) if machine.driver == "overlay" else -1,
        created=machine.created,
        modified=os.stat(path).st_mtime_ns // 1000,
        image=machine.image,
        driver=machine.driver,
        snapshots=tuple(snapshot.tag for snapshot in machine.snapshots),
    )


def disk_usage(path: str) -> int:
    """Return how many bytes a file, or a tree, takes on the disk; links count once."""
    seen: set[tuple[int, int]] = set()
    total, pending = os.lstat(path).st_blocks, [path] if os.path.isdir(path) else []
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:  # so deep that no path leads there, or gone
            continue
        with entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                directory = entry.is_dir(follow_symlinks=False)
                if status.st_nlink > 1 and not directory:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks
                if directory:
                    pending.append(entry.path)
    return total * 512


def birth_time(path: str) -> int:
    """Return when a file was made, in microseconds of CLOCK_REALTIME; 0 if nobody knows."""
    from machinectl_py.kernel.statx import birth_time_ns

    return birth_time_ns(path) // 1000


def pool_properties() -> dict[str, str | int | tuple[str, ...]]:
    """Return the properties of the place where images are kept."""
    place = store.MACHINES_DIR if os.path.isdir(store.MACHINES_DIR) else "/var/lib"
    status = os.statvfs(place)  # where it will be, if it is not there yet
    return {
        "PoolPath": store.MACHINES_DIR,
        "PoolUsage": (status.f_blocks - status.f_bfree) * status.f_frsize,
        "PoolLimit": status.f_blocks * status.f_frsize,
        "Images": tuple(name for name, _ in store.image_paths()),
        "Machines": tuple(machine.name for machine in all_machines()),
    }
