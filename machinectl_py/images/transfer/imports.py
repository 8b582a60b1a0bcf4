"""Images into the store: made aside of a file or a stream, shown when they are whole."""

from __future__ import annotations

import os

from machinectl_py.errors import UsageError
from machinectl_py.images import store
from machinectl_py.images.aside import AS_NEW
from machinectl_py.images.transfer import compress
from machinectl_py.images.transfer.making import finish, making
from machinectl_py.images.transfer.source import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.images.aside import Placing
    from machinectl_py.images.transfer.job import Progress


def name_of(path: str, name: str) -> str:
    """Return the image's name: the one given, or that of the file.

    Raises:
        UsageError: standard input has none.
        ConfigError: it is not valid.
    """
    if not name and path == "-":
        raise UsageError("What comes from standard input needs a NAME")
    name = name or compress.image_name(path)
    store.check_name(name)
    return name


def import_tar(
    path: str,
    name: str,
    progress: Progress,
    *,
    limit: int,
    warn: Callable[[str], None],
    placing: Placing = AS_NEW,
) -> str:
    """Make an image of an archive.

    Args:
        path: of the archive, or "-" for standard input; compressed or not.
        name: of the image; "" to call it as the file.
        progress: called with how much has been read.
        limit: the most that it may unpack to, in bytes; 0 for what the disk has.
        warn: called with each thing that is not as the archive has it.
        placing: how it takes its name.

    Returns:
        The image's directory.

    Raises:
        UsageError: standard input, and no name.
        NotFoundError: there is no such file.
        ConfigError: the name is not valid; the file is empty.
        DeniedError: the caller is not root.
        ConflictError: the image exists, or is being made.
        PymachineError: it is no good archive, or does not fit; interrupted.
    """
    from machinectl_py.images.transfer.tar import unpack

    name = name_of(path, name)
    with (
        opened(path) as source,
        making("import-tar", name, path, progress, placing) as (aside, job),
    ):
        unpack(source, aside, job, limit=limit, warn=warn)
        return finish(aside, job)


def import_raw(
    path: str, name: str, progress: Progress, *, limit: int, placing: Placing = AS_NEW
) -> str:
    """Make an image of a disk image; args, result and errors are those of `import_tar`."""
    from machinectl_py.images.transfer.raw import unpack

    name = name_of(path, name)
    with (
        opened(path) as source,
        making("import-raw", name, path, progress, placing) as (aside, job),
    ):
        unpack(source, aside.path, job, limit=limit)
        return finish(aside, job)


def import_fs(path: str, name: str, progress: Progress, placing: Placing = AS_NEW) -> str:
    """Make an image of a directory; args, result and errors are those of `import_tar`."""
    from machinectl_py.images.transfer.tree import copy

    path = os.path.realpath(path)
    name = name or os.path.basename(path)
    with making("import-fs", name, path, progress, placing) as (aside, job):
        copy(path, aside, job)
        return finish(aside, job)
