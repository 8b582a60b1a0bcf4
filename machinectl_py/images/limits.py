"""How much of the disk a machine may take, where its file system counts that."""

from __future__ import annotations

import os

from machinectl_py.errors import UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.drivers import root_of
from machinectl_py.images.held import Stopped
from machinectl_py.images.records import Machine, StoreLock, find_machine, write_machine
from machinectl_py.kernel import quota
from machinectl_py.kernel.statfs import is_subvolume
from machinectl_py.layout import layer_path


def set_limit(name: str, limit: int) -> None:
    """Limit what a machine or image takes on the disk.

    Of a machine that is a layer over its image it is what the machine writes to that layer: since
    it was made, or since its last snapshot.

    Args:
        name: of the machine or image.
        limit: bytes; 0 is no limit.

    Raises:
        NotFoundError: there is neither.
        ConflictError: it runs.
        UnsupportedError: the file system has no quotas, or they are not enabled.
    """
    store.check_name(name)
    with Stopped(name), StoreLock():
        machine = find_machine(name)
        if machine is not None:
            machine = machine.replace(limit=limit)
            apply_limit(machine)
            write_machine(machine)
            return
        path = store.find_root(name)
        if not os.path.isdir(path) or not is_subvolume(path):
            raise UnsupportedError(f"{path} is no subvolume of btrfs, which alone can be limited")
        _limit_subvolume(path, limit)


def set_pool_limit(limit: int) -> None:
    """Limit what all images together take on the disk, where /var/lib/machines is a subvolume.

    Args:
        limit: bytes; 0 is no limit.

    Raises:
        DeniedError: the caller is not root.
        UnsupportedError: it is none.
    """
    with StoreLock():
        path = store.MACHINES_DIR
        if not os.path.isdir(path) or not is_subvolume(path):
            raise UnsupportedError(f"{path} is no subvolume of btrfs, which alone can be limited")
        _limit_subvolume(path, limit)


def apply_limit(machine: Machine) -> None:
    """Have the file system hold a machine's limit for the layer that it writes to.

    Raises:
        UnsupportedError: it cannot.
    """
    if machine.driver == "btrfs":
        _limit_subvolume(root_of("btrfs", machine.base, machine.own), machine.limit)
    elif machine.driver == "overlay":
        _limit_layer(layer_path(machine.own), int(machine.own[:8], 16) | 1, machine.limit)
    else:
        raise UnsupportedError(
            f"What machine '{machine.name}' takes is limited by the size of its disk image"
        )


def _limit_subvolume(path: str, limit: int) -> None:
    try:
        quota.set_subvolume_limit(path, limit)
    except OSError as error:
        raise UnsupportedError(f"{path} cannot be limited: {error.strerror}") from error


def _limit_layer(path: str, project: int, limit: int) -> None:
    try:
        quota.set_project(path, project)
        quota.set_project_limit(path, project, limit)
    except OSError as error:
        if error.errno not in quota.NO_QUOTA:
            raise
        raise UnsupportedError(
            f"The file system of {path} has no quotas of projects, or they are not enabled",
            "ext4 has them with 'tune2fs -O project,quota' and the mount option prjquota, xfs with"
            " the mount option prjquota.",
        ) from error


def find_limit(path: str) -> int | None:
    """Return the limit of an image, or of the layer of a machine, in bytes; None if it has none."""
    if not os.path.isdir(path):
        return None
    if is_subvolume(path):
        return quota.subvolume_limit(path) or None
    project = quota.project_of(path)
    return (quota.project_limit(path, project) or None) if project else None
