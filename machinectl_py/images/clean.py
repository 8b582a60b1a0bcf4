"""Removing many images at once, as `machinectl clean` does."""

from __future__ import annotations

from machinectl_py.errors import PymachineError
from machinectl_py.images import store, sweep
from machinectl_py.images.aside import is_made_aside, remove_stale, stale
from machinectl_py.images.care import remove_image, unmark
from machinectl_py.images.held import ImageLock
from machinectl_py.images.listing import disk_usage
from machinectl_py.images.machines import remove_machine
from machinectl_py.images.records import machine_names
from machinectl_py.images.transfer.download import forget_all
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Removed(Record):
    """An image or machine that is gone, or that could not go."""

    name: str
    usage: int = 0  # bytes that it took
    problem: str = ""  # why it is still there


def clean(busy: frozenset[str], *, everything: bool) -> Iterator[Removed]:
    """Remove the hidden images and the files that downloads left, and yield what was removed.

    Args:
        busy: paths that machines use which run.
        everything: remove all machines and images too that are not in use.

    Raises:
        OSError: with the path; the store cannot be read.
    """
    if everything:
        for name in machine_names():
            yield _remove(name, 0, lambda name=name: remove_machine(name))
    for name, path in store.image_paths(hidden=True):
        if path.startswith("/usr/") or path in busy:
            continue
        usage = disk_usage(path)
        if name.startswith("."):
            if not is_made_aside(name):
                yield _remove(name, usage, lambda path=path: _remove_hidden(path))
        elif everything:
            yield _remove(name, usage, lambda name=name: remove_image(name))
    for url, usage in forget_all():
        yield Removed(name=url, usage=usage)


def _remove(name: str, usage: int, act: object) -> Removed:
    assert callable(act)
    try:
        act()
    except PymachineError as error:
        return Removed(name=name, problem=error.message)
    except OSError as error:
        return Removed(name=name, problem=": ".join(filter(None, (error.filename, error.strerror))))
    return Removed(name=name, usage=usage)


def _remove_hidden(path: str) -> None:
    """Remove a hidden image that nobody holds; also one that was being made.

    Raises:
        ConflictError: somebody does.
    """
    if path in stale():
        remove_stale()  # by the lock of who may begin to make it anew
        return
    with ImageLock(path):
        unmark(path)
        sweep.remove_any(path)
