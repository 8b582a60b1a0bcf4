"""File systems of each kind that hold images and machines, in the place of the host's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.apart import STORES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("tmpfs", "ext4", "btrfs", "xfs")
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
}


def _do(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


# Of images and machines in tests: their cgroups are seen by whoever else tests on this machine.
DEBIAN, WEB, DB, SHOP, GONE, GOLDEN = (
    f"{name}-{os.getpid()}" for name in ("debian", "web", "db", "shop", "gone", "golden")
)


class NoLoops(Exception):
    """This host has no loop devices to mount images by."""


@contextmanager
def pool(
    kind: str, megabytes: int = 1500, make: tuple[str, ...] = (), mount: str = ""
) -> Iterator[Path]:
    """Cover the places of images and machines with one new file system; give where it is.

    Args:
        kind: one of KINDS.
        megabytes: its size.
        make: options of mkfs.
        mount: options of mount(8).

    Raises:
        NoLoops: it would be on a loop device, and there are none.
    """
    with tempfile.TemporaryDirectory(
        prefix=f"pymachine-pool-{os.getpid()}-", dir="/var/tmp"
    ) as directory:
        top, image = Path(directory, "top"), Path(directory, "image")
        top.mkdir()
        if kind == "tmpfs":
            _do("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", top)
        else:
            with image.open("wb") as file:
                file.truncate(megabytes << 20)
            _do(*_MAKE[kind], *make, image)
            try:
                _do("mount", "-o", f"loop,{mount}", image, top)
            except subprocess.CalledProcessError as error:
                raise NoLoops(error.stderr.decode()) from error
        try:
            for place in STORES:
                below = top / Path(place).name
                below.mkdir(mode=0o700)
                Path(place).mkdir(mode=0o700, parents=True, exist_ok=True)
                _do("mount", "--bind", below, place)
            yield top
        finally:
            for place in reversed(STORES):
                subprocess.run(["umount", place], check=False)
            _do("umount", top)


def put_image(tree: Path, name: str, kind: str) -> Path:
    """Make an image of a tree: on btrfs a subvolume, elsewhere a directory."""
    path = Path(STORES[0], name)
    if kind == "btrfs":
        _do("btrfs", "subvolume", "create", path)
    else:
        path.mkdir()
    _do("cp", "--archive", f"{tree}/.", path)
    return path
