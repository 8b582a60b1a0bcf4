"""What is done with images and machines, compared with machinectl; wants systemd as PID 1."""

from __future__ import annotations

import itertools
import os
import subprocess

from machinectl_py.images.listing import disk_usage
from tests.bench.measure import alone, compare, milliseconds
from tests.bench.peers import PYMACHINE, pymachine
from tests.integration import pools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

IMAGE = f"bench{os.getpid()}"
_numbers = itertools.count(1)


def _ours() -> float:
    name = f"{IMAGE}-{next(_numbers)}"
    taken = milliseconds([*PYMACHINE, "clone", IMAGE, name])
    pymachine("remove", name)
    return taken


def _theirs() -> float:
    name = f"{IMAGE}-{next(_numbers)}"
    taken = milliseconds(["machinectl", "--quiet", "clone", IMAGE, name])
    subprocess.run(["machinectl", "--quiet", "remove", name], check=True)
    return taken


def compare_clones(tree: Path, copies: int) -> None:
    """Compare clones of one image: ours take the same time whatever its size.

    Args:
        tree: that the image is made of.
        copies: how often it is in it, as larger ones have more of the like.
    """
    for kind, goal in (("ext4", 0.02), ("btrfs", 0)):
        try:
            with pools.pool(kind, megabytes=6000):
                path = pools.put_image(tree, IMAGE, kind)
                for number in range(1, copies):
                    subprocess.run(["cp", "--archive", tree, path / f"srv/{number}"], check=True)
                what = f"{disk_usage(str(path)) >> 20} MB"
                compare(f"clone on {kind}, {what}", goal, _ours, _theirs, rounds=5)
        except pools.NoLoops as error:
            print(f"clone on {kind}: left out, {error}")


def measure_snapshots(tree: Path) -> None:
    """Measure snapshot and rollback on ext4, where machinectl has neither."""
    try:
        with pools.pool("ext4", megabytes=2000):
            pools.put_image(tree, IMAGE, "ext4")
            pymachine("create", "-q", IMAGE, "machine")
            snapshot, rollback = (
                [*PYMACHINE, verb, "machine"] for verb in ("snapshot", "rollback")
            )
            alone("snapshot on ext4", lambda: milliseconds([*snapshot, _tag()]))
            pymachine("snapshot", "-q", "machine", "last")
            alone("rollback on ext4", lambda: milliseconds([*rollback, "last"]))
            pymachine("remove", "machine")
    except pools.NoLoops as error:
        print(f"snapshot: left out, {error}")


def _tag() -> str:
    return f"tag-{next(_numbers)}"
