"""The root made up outside, in a mount namespace for that alone; mount_namespaces(7).

Root of a user namespace can neither reach every directory of the host nor use what the host's root
keeps in attributes of files (trusted.overlay.*), so an overlay is made for it by the host's root.
"""

from __future__ import annotations

import os

from machinectl_py.kernel import const, namespaces
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.plan.context import HOME_SLOTS
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.root import ANCHOR, COMPOSED_TREE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class UnshareMounts(Step):
    """Be in a mount namespace of our own for a while."""

    name = "unshare-mounts"
    place = "supervisor"
    man = "unshare(2) CLONE_NEWNS"
    because = "overlays take mounted layers, and the host shall see none of these mounts"
    gives = HOME_SLOTS

    def describe(self) -> str:
        """Return the act."""
        return "unshare CLONE_NEWNS for the next steps, make / rslave"

    def command(self) -> str:
        """Return the shell's way."""
        return "unshare --mount --propagation slave …"

    def apply(self, context: Context) -> None:
        """Keep the way back, which is taken too if a step fails, and go."""
        for slot, path in zip(HOME_SLOTS, ("/proc/self/ns/mnt", "/", "."), strict=True):
            context.give(slot, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        namespaces.unshare(const.CLONE_NEWNS)
        kernel_mount.mount("", "/", flags=const.MS_SLAVE | const.MS_REC)


class RejoinMounts(Step):
    """Take what was made up along, and return."""

    name = "rejoin-mounts"
    place = "supervisor"
    man = "setns(2)"
    because = "all that follows is seen by the host"
    takes = HOME_SLOTS
    gives = (COMPOSED_TREE,)

    def describe(self) -> str:
        """Return the act."""
        return "open_tree the root as composed, setns CLONE_NEWNS back"

    def apply(self, context: Context) -> None:
        """Clone what is on top; it outlives the namespace, whose last user we are."""
        tree = kernel_mount.open_tree(ANCHOR)
        context.give(COMPOSED_TREE, tree)
        kernel_mount.set_attributes(tree, propagation=const.MS_PRIVATE)
        context.rejoin_mounts()
