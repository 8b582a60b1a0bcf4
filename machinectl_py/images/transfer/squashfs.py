"""Trees of squashfs images, by unsquashfs(1)."""

from __future__ import annotations

import os

from machinectl_py.images import store
from machinectl_py.images.transfer.confine import Place, Tool, World, find_program
from machinectl_py.images.transfer.flow import Room
from machinectl_py.images.transfer.tar import WRITER, lift_tree
from machinectl_py.kernel import const
from machinectl_py.kernel.mount import open_tree, set_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.aside import Aside
    from machinectl_py.images.transfer.job import Job


def unpack(path: str, aside: Aside, job: Job) -> None:
    """Make the tree of a squashfs image in a place aside.

    Raises:
        UnsupportedError: unsquashfs is not installed.
        PymachineError: it is damaged, or does not fit; interrupted.
        OSError: with the path.
    """
    program = find_program("unsquashfs", package="squashfs-tools")
    aside.make_directory()
    room = Room(store.MACHINES_DIR)

    def look() -> None:
        job.progress("unpacking", "")
        room.check()

    image, tree = open_tree(path, recursive=False), open_tree(aside.path, recursive=False)
    try:
        set_attributes(image, const.MOUNT_ATTR_RDONLY, recursive=False)
        places = (
            Place(name="image", mount=image, directory=False),
            Place(name="tree", mount=tree),
        )
        words = ("-no-progress", "-xattrs", "-force", "-dest", "/tree", "/image")
        tool = Tool(command=(program, *words), stdin=-1, stdout=-1, capabilities=WRITER)
        job.run((tool,), World(places=places), look, "Cannot unpack the image")
    finally:
        os.close(image)
        os.close(tree)
    lift_tree(aside.path)
