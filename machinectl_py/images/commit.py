"""Making an image of what a machine is now."""

from __future__ import annotations

import os

from machinectl_py.errors import PymachineError
from machinectl_py.images import store
from machinectl_py.images.aside import made_aside
from machinectl_py.images.care import mark
from machinectl_py.images.copying import copy_tree
from machinectl_py.images.drivers import root_of
from machinectl_py.images.held import Stopped
from machinectl_py.images.machine_view import open_machine
from machinectl_py.images.machines import require_machine
from machinectl_py.images.records import refuse_existing
from machinectl_py.kernel import btrfs
from machinectl_py.kernel.reflink import NOT_SHARED, clone_file
from machinectl_py.kernel.statfs import BTRFS, filesystem_magic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.records import Machine


def commit(name: str, image: str) -> str:
    """Make the image IMAGE of a machine that does not run; return its path.

    It stands on nothing: a directory or file as every other, marked read-only.

    Raises:
        ConfigError: IMAGE is no valid name.
        NotFoundError: there is no such machine.
        ConflictError: it runs, or there is something of the name IMAGE.
        PymachineError: it cannot be made; nothing is left of the try.
    """
    store.check_name(image)
    with Stopped(name, image):
        machine = require_machine(name)
        refuse_existing(image)
        with made_aside(image) as aside:
            _fill(machine, aside.path)
            path = aside.commit()
            mark(path)
    return path


def _fill(machine: Machine, target: str) -> None:
    root = root_of(machine.driver, machine.base, machine.own)
    if machine.driver == "reflink":
        _copy_file(root, target)
    else:
        _copy_root(machine, root, target)


def _copy_root(machine: Machine, root: str, target: str) -> None:
    if machine.driver == "btrfs":
        try:
            btrfs.snapshot(root, target)
        except OSError as error:
            if error.errno not in btrfs.NO_SNAPSHOT:
                raise
        else:
            return
    if filesystem_magic(os.path.dirname(target)) == BTRFS:
        btrfs.create(target)
    else:
        os.mkdir(target)
    with open_machine(machine) as view:
        keep = (int(view.rpartition("/")[2]),) if view.startswith("/proc/self/fd/") else ()
        copy_tree(view, target, keep=keep)


def _copy_file(source: str, target: str) -> None:
    """Copy a disk image: share its extents, or leave out its holes."""
    try:
        clone_file(source, target)
    except OSError as error:
        if error.errno not in NOT_SHARED:
            raise
        import subprocess

        words = ("cp", "--sparse=always", "--", source, target)
        done = subprocess.run(words, check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise PymachineError(f"Cannot copy {source}", done.stderr.strip()) from error
