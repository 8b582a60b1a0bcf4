"""An image that is being made of something: its place, what stops it, who sees how far it is."""

from __future__ import annotations

from contextlib import contextmanager

from machinectl_py.images.aside import AS_NEW, made_aside
from machinectl_py.images.transfer.job import Job
from machinectl_py.images.transfer.registry import registered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from machinectl_py.images.aside import Aside, Placing
    from machinectl_py.images.transfer.job import Progress


@contextmanager
def making(
    kind: str, name: str, remote: str, progress: Progress, placing: Placing = AS_NEW
) -> Iterator[tuple[Aside, Job]]:
    """Give a place to make the image NAME in, and the job of it, which others see.

    Args:
        kind: as the verb is called: "pull-tar".
        name: of the image.
        remote: what it is made of.
        progress: called with what is being done and how far it is.
        placing: how it takes its name.

    Raises:
        PymachineError: and its kinds, as `made_aside`.
    """
    with (
        made_aside(name, placing) as aside,
        registered(kind, name, remote, progress) as told,
    ):
        yield aside, Job(told, aside.interruption, aside.lock, target=aside.directory)


def finish(aside: Aside, job: Job) -> str:
    """Write the image to the disk and show it; return its path."""
    job.progress("writing it to the disk", "")
    return aside.commit()
