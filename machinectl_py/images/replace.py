"""An image in the place of another of the same name: at any moment one of them is there, whole."""

from __future__ import annotations

import os

from machinectl_py.images.care import refuse_used, unmark
from machinectl_py.images.held import ImageLock, Stopped
from machinectl_py.images.records import StoreLock
from machinectl_py.kernel.rename import exchange


def refuse_in_use(name: str, path: str, *, held: str) -> None:
    """Refuse early what `replace` would refuse at the end.

    Args:
        name: of the image.
        path: of the image that is there; "" if there is none.
        held: a lock that the caller has already.

    Raises:
        ConflictError: it is in use, or machines stand on it.
    """
    if path:
        with Stopped(name), ImageLock(path, held=held), StoreLock():
            refuse_used(path, "replaced")


def replace(name: str, old: str, new: str, target: str, *, held: str) -> None:
    """Put an image in another's place.

    Args:
        name: of both.
        old: path of the one that goes.
        new: path of the one that comes; the other is there afterwards, to be removed.
        target: path that it is to have: `old`, unless one is a tree and the other a disk image.
        held: a lock that the caller has already.

    Raises:
        ConflictError: the old one is in use, or machines stand on it.
        OSError: with the paths; EINVAL, the file system has no exchange.
    """
    with Stopped(name), ImageLock(old, held=held), StoreLock():
        refuse_used(old, "replaced")
        if not os.path.islink(old):
            unmark(old)  # what is immutable cannot be renamed
        if old == target:
            exchange(new, target)
        else:
            os.rename(new, target)
            os.rename(old, new)
