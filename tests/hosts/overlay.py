"""Cheap private copies of a tree: an overlay whose upper layer is in memory."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.leftovers import make_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def mount_copy(lower: Path | str, target: Path | str) -> None:
    """Mount a writable copy of `lower` on `target`: two mounts, the upper one the overlay.

    The layer in memory is on a tmpfs of its own, because overlayfs cannot have its upper layer
    on an overlay, which is what a container host's disk may be.
    """
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", target], check=True)
    for name in ("upper", "work"):
        Path(target, name).mkdir()
    options = f"lowerdir={lower},upperdir={target}/upper,workdir={target}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", target], check=True)


@contextmanager
def private_copy(lower: Path | str) -> Iterator[Path]:
    """Give a writable copy of a tree that is gone, with what was written, at the end."""
    target = make_directory("tree")
    mount_copy(lower, target)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)
        subprocess.run(["umount", target], check=True)
        target.rmdir()
