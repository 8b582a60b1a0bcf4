"""Images out of the store: found, held, written to a file."""

from __future__ import annotations

import os
from contextlib import contextmanager

from machinectl_py.errors import ConflictError, DeniedError, NotFoundError, UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.aside import lock_path
from machinectl_py.images.interruption import Interruption
from machinectl_py.images.records import find_machine
from machinectl_py.images.transfer import compress
from machinectl_py.images.transfer.job import Job
from machinectl_py.images.transfer.output import written
from machinectl_py.images.transfer.registry import registered
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.layout import ROOT_LOCK_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from machinectl_py.images.transfer.job import Progress


def export_tar(name: str, path: str, progress: Progress, *, format_: str = "") -> None:
    """Write the archive of an image that is a tree.

    Args:
        name: of the image.
        path: of the file, or "-" for standard output.
        progress: called with how much has been written.
        format_: one of compress.NAMES; "" to go by the file's suffix.

    Raises:
        ConfigError: the name or format is not valid.
        NotFoundError: there is no such image.
        UnsupportedError: it is a disk image; a program is not installed.
        ConflictError: it is in use.
        PymachineError: it cannot be read whole, or written; interrupted.
    """
    from machinectl_py.images.transfer.tar import pack

    chosen = compress.choose(format_, path)
    store.check_name(name)
    with opened(name) as (root, is_directory, lock):
        if not is_directory:
            raise UnsupportedError(
                f"{root} is a disk image", "'pymachine export-raw' writes those."
            )
        with (
            Interruption() as interruption,
            registered("export-tar", name, path, progress) as told,
            written(path) as output,
        ):
            pack(root, output, chosen, Job(told, interruption, lock, target=output))


def export_raw(name: str, path: str, progress: Progress, *, format_: str = "") -> None:
    """Write an image that is a disk image to a file, with its holes if it is not compressed.

    Args and errors are those of `export_tar`.
    """
    from machinectl_py.images.transfer.raw import pack

    chosen = compress.choose(format_, path)
    store.check_name(name)
    with opened(name) as (image, is_directory, lock):
        if is_directory:
            raise UnsupportedError(
                f"'{name}' is no disk image", "'pymachine export-tar' archives trees."
            )
        with (
            Interruption() as interruption,
            registered("export-raw", name, path, progress) as told,
            written(path) as output,
        ):
            pack(image, output, chosen, Job(told, interruption, lock, target=output))


@contextmanager
def opened(name: str) -> Iterator[tuple[str, bool, int]]:
    """Give a path of a machine, or else an image, whether it is a directory, and its lock.

    Raises:
        NotFoundError: there is neither.
        DeniedError: the caller is not root.
        ConflictError: somebody changes it, or it runs.
    """
    machine = find_machine(name)
    if machine is None:
        root, is_directory = _find(name)
        with _held(name, root) as lock:
            yield root, is_directory, lock
        return
    from machinectl_py.images.drivers import root_of
    from machinectl_py.images.held import Stopped
    from machinectl_py.images.machine_view import open_machine

    with Stopped(name) as stopped:
        if machine.driver == "reflink":
            yield root_of("reflink", machine.base, machine.own), False, stopped.lock
            return
        with open_machine(machine) as root:
            yield root, True, stopped.lock


def _find(name: str) -> tuple[str, bool]:
    """Return the path of an image without symbolic links, and whether it is a directory."""
    for place in store.SEARCH_PATH:
        path = f"{place}/{name}"
        if os.path.isdir(path):
            return os.path.realpath(path), True
        if os.path.exists(f"{path}.raw"):
            return os.path.realpath(f"{path}.raw"), False
    raise NotFoundError(f"There is no image '{name}' in {store.MACHINES_DIR}")


@contextmanager
def _held(name: str, path: str) -> Iterator[int]:
    """Hold the image's lock with others who read it; give its descriptor.

    Raises:
        DeniedError: the caller is not root.
        ConflictError: somebody changes it, or a machine runs on it.
    """
    if os.geteuid() != 0:
        raise DeniedError("Only root may read images", "Try again with sudo.")
    lock = take_lock(lock_path(name), shared=True)
    if lock is None:
        raise ConflictError(f"Image '{name}' is being made or in use by another process")
    try:
        status = os.stat(path)
        if is_locked(f"{ROOT_LOCK_DIR}/inode-{status.st_dev}:{status.st_ino}"):
            raise ConflictError(
                f"A machine runs on {path}, and would change it meanwhile",
                f"'pymachine poweroff {name}' stops it.",
            )
        yield lock
    finally:
        drop_lock(lock_path(name), lock)
