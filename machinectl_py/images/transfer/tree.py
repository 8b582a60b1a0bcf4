"""Trees copied from elsewhere on the host: a snapshot where that is possible, else by cp(1)."""

from __future__ import annotations

import errno
import os

from machinectl_py.errors import NotFoundError
from machinectl_py.images import store
from machinectl_py.images.transfer.confine import Place, Tool, World, find_program
from machinectl_py.images.transfer.flow import Room
from machinectl_py.kernel import btrfs, const
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.kernel.statfs import is_subvolume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.aside import Aside
    from machinectl_py.images.transfer.job import Job

_COPIER = parse_names(
    (
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "MKNOD",
        "SETFCAP",
        "SYS_ADMIN",
    )
)
# What the kernel answers where a snapshot cannot be: another file system, or no btrfs.
_NO_SNAPSHOT = (errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP)


def copy(directory: str, aside: Aside, job: Job) -> None:
    """Make a copy of a tree in a place aside; what is mounted in it is left out.

    Raises:
        NotFoundError: there is no such directory.
        PymachineError: it cannot be copied; interrupted.
        OSError: with the path.
    """
    if not os.path.isdir(directory):
        raise NotFoundError(f"There is no directory {directory}")
    if not _snapshot(directory, aside.path):
        aside.make_directory()
        _copy(directory, aside.path, job)


def _snapshot(directory: str, path: str) -> bool:
    if not is_subvolume(directory):
        return False
    try:
        btrfs.snapshot(directory, path)
    except OSError as error:
        if error.errno not in _NO_SNAPSHOT:
            raise
        return False
    return True


def _copy(directory: str, path: str, job: Job) -> None:
    room = Room(store.MACHINES_DIR)

    def look() -> None:
        job.progress("copying", "")
        room.check()

    words = ("--archive", "--reflink=auto", "--sparse=auto", "--", "/from/.", "/to")
    command = (find_program("cp", package="coreutils"), *words)
    from_ = open_tree(directory, recursive=False)
    into = open_tree(path, recursive=False)
    try:
        set_attributes(from_, const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NODEV, recursive=False)
        world = World(places=(Place(name="from", mount=from_), Place(name="to", mount=into)))
        tool = Tool(command=command, stdin=-1, stdout=-1, capabilities=_COPIER)
        job.run((tool,), world, look, f"Cannot copy {directory}")
    finally:
        os.close(from_)
        os.close(into)
