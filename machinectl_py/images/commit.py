"""Making an image of what a machine is now."""

from __future__ import annotations

from machinectl_py.images import store
from machinectl_py.images.aside import made_aside
from machinectl_py.images.care import mark
from machinectl_py.images.copying import copy_file, copy_tree
from machinectl_py.images.drivers import root_of
from machinectl_py.images.held import Stopped
from machinectl_py.images.machine_view import open_machine
from machinectl_py.images.machines import require_machine
from machinectl_py.images.records import refuse_existing
from machinectl_py.kernel import btrfs
from machinectl_py.kernel.reflink import NOT_SHARED, clone_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.aside import Aside
    from machinectl_py.images.records import Machine


def commit(name: str, image: str) -> str:
    """Make the image IMAGE of a machine that does not run; return its path.

    It stands on nothing: a directory or file as every other, marked read-only.

    Raises:
        ConfigError: IMAGE is no valid name.
        NotFoundError: there is no such machine.
        ConflictError: it runs, or there is something of the name IMAGE.
        PymachineError: it cannot be made, or interrupted; nothing is left of the try.
    """
    store.check_name(image)
    with Stopped(name, image):
        machine = require_machine(name)
        refuse_existing(image)
        with made_aside(image) as aside:
            _fill(machine, aside)
            path = aside.commit()
            mark(path)
    return path


def _fill(machine: Machine, aside: Aside) -> None:
    root = root_of(machine.driver, machine.base, machine.own)
    if machine.driver == "reflink":
        _copy_file(root, aside)
    else:
        _copy_root(machine, root, aside)


def _copy_root(machine: Machine, root: str, aside: Aside) -> None:
    if machine.driver == "btrfs":
        try:
            btrfs.snapshot(root, aside.path)
        except OSError as error:
            if error.errno not in btrfs.NO_SNAPSHOT:
                raise
        else:
            return
    aside.make_directory()
    with open_machine(machine) as view:
        seen = (int(view.rpartition("/")[2]),) if view.startswith("/proc/self/fd/") else ()
        keep = (aside.lock, *seen)
        copy_tree(view, aside.path, keep=keep, interruption=aside.interruption)


def _copy_file(source: str, aside: Aside) -> None:
    """Copy a disk image: share its extents, or leave out its holes."""
    try:
        clone_file(source, aside.path)
    except OSError as error:
        if error.errno not in NOT_SHARED:
            raise
        copy_file(source, aside.path, keep=(aside.lock,), interruption=aside.interruption)
