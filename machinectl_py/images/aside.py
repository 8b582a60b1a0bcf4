"""Making an image where nobody sees it, and showing it when it is whole.

What is made stands in /var/lib/machines under a hidden name, written to the disk before it is
renamed, or changes places with the image that it replaces. Meanwhile the image's lock is held, the
one that machinectl takes for the same name: so what stands under such a name and has no holder was
left by somebody who was killed.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from machinectl_py.errors import ConflictError, DeniedError, PymachineError, UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.beside import Companions, remove_beside, stem_of
from machinectl_py.images.interruption import Interruption
from machinectl_py.kernel import btrfs
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.kernel.statfs import BTRFS, filesystem_magic, is_subvolume
from machinectl_py.kernel.writeback import sync_filesystem
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX, _SUFFIX, _LOCK = ".#", ".new", ".lck"


class Placing(Record):
    """How an image takes its name."""

    replaces: bool = False  # an image of the same name, if there is one
    read_only: bool = False  # marked so, as `machinectl read-only` does


AS_NEW = Placing()


class Aside:
    """The hidden place of an image that is being made."""

    def __init__(self, name: str, lock: int, interruption: Interruption, placing: Placing) -> None:
        """Hold the image's name and its lock."""
        self.name, self.placing = name, placing
        self.lock = lock  # descriptor: who works on the image keeps it
        # Open from before the first byte: syncfs(2) tells of what failed since then, and by this.
        self.directory = os.open(store.MACHINES_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.interruption = interruption
        self.path = path_aside(name)
        self.companions = Companions(store.MACHINES_DIR)

    def make_directory(self) -> None:
        """Make it an empty directory; on btrfs a subvolume, of which snapshots can be taken.

        Raises:
            OSError: with the path.
        """
        if filesystem_magic(store.MACHINES_DIR) == BTRFS:
            btrfs.create(self.path)
        else:
            os.mkdir(self.path)
        os.chmod(self.path, 0o755)

    def commit(self) -> str:
        """Write it to the disk and give it the image's name; return the image's path.

        Raises:
            PymachineError: interrupted; the name was taken meanwhile, or the image that is to be
                replaced is in use.
            UnsupportedError: it is there, but its file system has no mark for what is read-only.
            OSError: with the path.
        """
        is_file = stat.S_ISREG(os.stat(self.path, follow_symlinks=False).st_mode)
        # So that a crash cannot leave the image hollow.
        sync_filesystem(self.directory, store.MACHINES_DIR)
        self.interruption.check()
        target = f"{store.MACHINES_DIR}/{self.name}" + (".raw" if is_file else "")
        old = store.existing(self.name) if self.placing.replaces else ""
        if old:
            self._replace(old, target)
        else:
            self._show(target)
        sync_filesystem(self.directory, store.MACHINES_DIR)
        if self.placing.read_only:
            self._mark(target)
        return target

    def _show(self, target: str) -> None:
        """Give it a name that is free; before there is an image there is what tells of it."""
        store.refuse_existing(self.name)
        shown = self.companions.show(stem_of(target), replace=self.placing.replaces)
        try:
            os.rename(self.path, target)
        except OSError:
            for path in shown:
                os.unlink(path)
            raise

    def _replace(self, old: str, target: str) -> None:
        from machinectl_py.images.replace import replace

        replace(self.name, old, self.path, target, held=lock_path(self.name))
        remove_beside(old, but=self.companions.suffixes)
        self.companions.show(stem_of(target), replace=True)

    @staticmethod
    def _mark(target: str) -> None:
        from machinectl_py.images.care import mark

        mark(target)
        if not store.is_read_only(target):
            raise UnsupportedError(
                f"{target} is made, but its file system has no mark for what is read-only"
            )


@contextmanager
def made_aside(name: str, placing: Placing = AS_NEW) -> Iterator[Aside]:
    """Give a place to make the image NAME in; whatever is not committed there is removed.

    What it replaces is removed at the end, and is as it was until then.

    SIGINT, SIGTERM and SIGHUP are noted meanwhile; see `Aside.interruption`.

    Raises:
        ConfigError: the name is not valid.
        DeniedError: the caller is not root.
        ConflictError: the image exists, or is being made or used by others; or machines stand on
            the one that it is to replace.
        PymachineError: an OSError of the block, such as a full disk.
    """
    store.check_name(name)
    if os.geteuid() != 0:
        raise DeniedError("Only root may make images", "Try again with sudo.")
    os.makedirs(store.MACHINES_DIR, 0o700, exist_ok=True)
    if not placing.replaces:
        store.refuse_existing(name)
    lock = take_lock(lock_path(name))
    if lock is None:
        raise ConflictError(f"Image '{name}' is being made or in use by another process")
    try:
        if placing.replaces:
            from machinectl_py.images.replace import refuse_in_use

            refuse_in_use(name, store.existing(name), held=lock_path(name))
        with Interruption() as interruption:
            remove_stale(held=name)
            aside = Aside(name, lock, interruption, placing)
            try:
                yield aside
            finally:
                aside.companions.close()
                remove(aside.path)
                os.close(aside.directory)
    except OSError as error:
        raise PymachineError(f"Cannot make image '{name}': {explain(error)}") from error
    finally:
        drop_lock(lock_path(name), lock)


def explain(error: OSError) -> str:
    """Return what went wrong in words, with the path."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left in {store.MACHINES_DIR}"
    subject = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{subject}{error.strerror or error}"


def lock_path(name: str) -> str:
    """Return the lock of an image, where systemd's tools have it too."""
    return f"{store.MACHINES_DIR}/{_PREFIX}{name}{_LOCK}"


def path_aside(name: str) -> str:
    """Return where the image NAME is made."""
    return f"{store.MACHINES_DIR}/{_PREFIX}{name}{_SUFFIX}"


def remove_stale(held: str = "") -> None:
    """Remove what was being made when its maker was killed.

    Args:
        held: the name whose lock the caller holds.
    """
    for entry in os.listdir(store.MACHINES_DIR):
        name = entry.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if entry != f"{_PREFIX}{name}{_SUFFIX}" or not store.is_valid_name(name):
            continue
        lock = None if name == held else take_lock(lock_path(name))
        if name == held or lock is not None:
            remove(f"{store.MACHINES_DIR}/{entry}")
        if lock is not None:
            drop_lock(lock_path(name), lock)


def is_made_aside(entry: str) -> bool:
    """Say whether an entry of /var/lib/machines is an image that is being made."""
    name = entry.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    return entry == f"{_PREFIX}{name}{_SUFFIX}" and is_locked(lock_path(name))


def stale() -> list[str]:
    """Return the paths of what was being made when its maker was killed."""
    try:
        entries = sorted(os.listdir(store.MACHINES_DIR))
    except FileNotFoundError:
        return []
    names = {entry: entry.removeprefix(_PREFIX).removesuffix(_SUFFIX) for entry in entries}
    return [
        f"{store.MACHINES_DIR}/{entry}"
        for entry, name in names.items()
        if entry == f"{_PREFIX}{name}{_SUFFIX}"
        and store.is_valid_name(name)
        and not is_locked(lock_path(name))
    ]


def free_locks() -> list[str]:
    """Return the paths of images' locks that nobody holds; who held them was killed."""
    try:
        entries = sorted(os.listdir(store.MACHINES_DIR))
    except FileNotFoundError:
        return []
    paths = [
        f"{store.MACHINES_DIR}/{entry}"
        for entry in entries
        if entry.startswith(_PREFIX) and entry.endswith(_LOCK)
    ]
    return [path for path in paths if not is_locked(path)]


def remove(path: str) -> None:
    """Remove a file, a tree or a subvolume; leave it to a later try where that fails."""
    try:
        if os.path.isdir(path) and not os.path.islink(path) and is_subvolume(path):
            btrfs.delete(path)
        else:
            remove_tree(path)
    except OSError:
        pass
