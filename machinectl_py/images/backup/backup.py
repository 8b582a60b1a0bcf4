"""Backups of machines and images: made of what stands still, and restored whole."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager

from machinectl_py.errors import ConflictError, NotFoundError
from machinectl_py.images import snapshots, store
from machinectl_py.images.aside import AS_NEW
from machinectl_py.images.backup import settings
from machinectl_py.images.backup.repository import Backup, Repository
from machinectl_py.images.drivers import root_of
from machinectl_py.images.held import ASIDE
from machinectl_py.images.interruption import Interruption
from machinectl_py.images.machine_view import open_layers
from machinectl_py.images.machines import require_machine
from machinectl_py.images.records import find_machine
from machinectl_py.images.transfer.confine import Place
from machinectl_py.images.transfer.exports import opened
from machinectl_py.images.transfer.job import Job
from machinectl_py.images.transfer.making import finish, making
from machinectl_py.images.transfer.registry import registered
from machinectl_py.images.transfer.tar import READER, WRITER, lift, take_tree
from machinectl_py.kernel import const
from machinectl_py.kernel.locks import drop_lock, take_lock
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.layout import LOCK_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from machinectl_py.images.aside import Placing
    from machinectl_py.images.backup.repository import Statistics
    from machinectl_py.images.transfer.job import Progress

# Of the snapshot that a backup of a running machine is made of, and that goes with it.
_TAG = "being-backed-up"
_READ = const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV


def back_up(
    name: str,
    directory: str,
    progress: Progress,
    *,
    keep: int = 0,
    frozen: AbstractContextManager[object] | None = None,
    warn: Callable[[str], None],
) -> tuple[Backup, Statistics]:
    """Add a backup of a machine, or else an image, to a directory of backups.

    Args:
        name: of the machine or image.
        directory: of backups; made if it is missing.
        progress: called with what is being done.
        keep: how many backups of it to keep; 0 for all.
        frozen: entered while a snapshot is taken of a machine that runs; None if it does not.
        warn: called with each thing that is not in the backup as it should be.

    Raises:
        ConfigError: there is something else in the directory.
        NotFoundError: there is no such machine or image.
        ConflictError: it runs on its image in place; it is being backed up.
        UnsupportedError: borg is not installed.
        PymachineError: it cannot be read or written; interrupted.
    """
    store.check_name(name)
    version = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    still = _snapshot(name, frozen) if frozen is not None else opened(name)
    with (
        still as (path, is_directory, lock),
        Interruption() as interruption,
        registered("backup", name, directory, progress) as told,
    ):
        repository = Repository(directory, Job(told, interruption, lock))
        repository.make()
        backup = Backup(name=name, version=version, kind="directory" if is_directory else "disk")
        with tempfile.TemporaryDirectory(prefix="pymachine-", dir="/run") as own:
            machine = find_machine(name)
            settings.collect(name, machine.base if machine else path, own)
            if machine is None:  # else the disk may have changed, and they with it
                settings.collect_hashes(path, own)
            statistics, complaints = _add(repository, backup, path, own)
        for line in complaints:
            warn(line)
        if keep:
            repository.keep_last(name, keep)
    return backup, statistics


def _add(
    repository: Repository, backup: Backup, path: str, own: str
) -> tuple[Statistics, tuple[str, ...]]:
    is_directory = backup.kind == "directory"
    root = take_tree(path)
    files = open_tree(own, recursive=False)
    try:
        for mount in (root, files):
            set_attributes(mount, _READ, recursive=False)
        name = "root" if is_directory else "disk.raw"
        places = (
            Place(name=name, mount=root, directory=is_directory),
            Place(name="settings", mount=files),
        )
        return repository.create(backup, places, READER)
    finally:
        os.close(root)
        os.close(files)


@contextmanager
def _snapshot(name: str, frozen: AbstractContextManager[object]) -> Iterator[tuple[str, bool, int]]:
    """Give what `exports.opened` gives, of a snapshot of a machine that runs."""
    path = f"{LOCK_DIR}/.backup-{name}"  # hidden: no machine has such a name
    lock = take_lock(path)
    if lock is None:
        raise ConflictError(f"Machine '{name}' is being backed up")
    try:
        _forget(name)  # what a killed backup left
        taken = snapshots.take_running(name, _TAG, frozen)
        machine = require_machine(name)
        try:
            if machine.driver == "reflink":
                yield root_of("reflink", machine.base, taken.layers[0]), False, lock
                return
            with open_layers(machine, taken.layers) as root:
                yield root, True, lock
        finally:
            _forget(name)
    finally:
        drop_lock(path, lock)


def _forget(name: str) -> None:
    machine = find_machine(name)
    if machine is not None and any(s.tag == _TAG for s in machine.snapshots):
        snapshots.forget(name, _TAG)


def list_backups(directory: str, name: str, progress: Progress) -> tuple[Backup, ...]:
    """Return the backups of a machine, or all, the oldest first.

    Raises:
        NotFoundError: there is no such directory of backups.
        PymachineError: it cannot be read; interrupted.
    """
    with Interruption() as interruption:
        repository = Repository(directory, Job(progress, interruption, -1))
        repository.require()
        return repository.backups(name)


def restore(
    name: str,
    directory: str,
    new: str,
    progress: Progress,
    *,
    version: str = "",
    warn: Callable[[str], None],
    placing: Placing = AS_NEW,
) -> str:
    """Make an image of a backup, with its settings.

    Args:
        name: of the machine that was backed up.
        directory: of backups.
        new: the image's name; "" for the machine's.
        progress: called with what is being done.
        version: of the backup; "" for the last one.
        warn: called with each thing that is not as it was.
        placing: how it takes its name.

    Returns:
        The image's path.

    Raises:
        NotFoundError: there is no such directory, machine or version.
        ConflictError: there is an image or machine of that name.
        PymachineError: it cannot be read or written; interrupted.
    """
    new = new or name
    store.check_name(new)
    if find_machine(new) is not None:
        raise ConflictError(f"There is a machine '{new}' already", "Give it another name.")
    with making("restore", new, directory, progress, placing) as (aside, job):
        repository = Repository(directory, job)
        repository.require()
        backup = _choose(repository.backups(name), name, version)
        if backup.kind == "directory":
            aside.make_directory()
        else:
            os.mkdir(aside.path)  # no subvolume, out of which nothing could be renamed
        place = open_tree(aside.path, recursive=False)
        try:
            for line in repository.extract(backup, Place(name="into", mount=place), WRITER):
                warn(line)
        finally:
            os.close(place)
        settings.put_back(new, f"{aside.path}/settings")
        settings.put_hashes(f"{aside.path}/settings", aside.companions)
        _take_out(aside.path, backup)
        return finish(aside, job)


def _choose(backups: tuple[Backup, ...], name: str, version: str) -> Backup:
    matching = [backup for backup in backups if version in ("", backup.version)]
    if matching:
        return matching[-1]
    some = ", ".join(backup.version for backup in backups[-5:])
    raise NotFoundError(
        f"There is no backup of '{name}'" + (f" of {version}" if version else ""),
        f"There are those of {some}." if some else "",
    )


def _take_out(path: str, backup: Backup) -> None:
    """Leave of what was extracted the root or disk alone, at the path itself."""
    remove_tree(f"{path}/settings")
    if backup.kind == "directory":
        lift(path, "root")
        return
    # Its lock says that it is no leftover, as long as we live.
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        other = f"{os.path.dirname(path)}/{ASIDE}{os.urandom(8).hex()}"
        os.rename(path, other)
        os.rename(f"{other}/disk.raw", path)
        os.rmdir(other)
    finally:
        os.close(directory)
