"""Locks the mounts of a machine with a user namespace; mount_namespaces(7)."""

from __future__ import annotations

import os

from machinectl_py.kernel import const, mount_locks, namespaces
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class OfferMounts(Step):
    """Tell the supervisor that the mounts are made."""

    name = "offer-mounts"
    man = "mount_namespaces(7)"
    because = "after all that root inside may not undo"
    gives = ("mounts",)

    def describe(self) -> str:
        """Return the act."""
        return "say that the mounts are made"

    def apply(self, context: Context) -> None:
        """Say so."""
        context.give("mounts", 1)


class LockMounts(Step):
    """Copy the mount namespace by way of one of the host's, so that all mounts are locked."""

    name = "lock-mounts"
    place = "supervisor"
    man = "mount_namespaces(7)"
    because = "by root of the host: the kernel locks what comes from another user namespace"
    takes = ("mounts", "leader-pidfd")
    gives = ("mount-namespace",)

    def describe(self) -> str:
        """Return the act."""
        return "copy the mount namespace into one of the host, and that into one of the machine"

    def command(self) -> str:
        """Return the shell's way."""
        return "nsenter --mount -t LEADER unshare --mount nsenter --user -t LEADER unshare --mount"

    def apply(self, context: Context) -> None:
        """Copy it by a short-lived process."""
        locked = mount_locks.copy_locked(context.number("leader-pidfd"))
        context.give("mount-namespace", locked)


class EnterMounts(Step):
    """Go on where the mounts are locked; the namespace in which they were made ends."""

    name = "enter-mounts"
    man = "setns(2)"
    because = "what is mounted from here on, root inside may undo: the covers of a proc of its own"
    takes = ("mount-namespace",)

    def describe(self) -> str:
        """Return the act."""
        return "setns CLONE_NEWNS to the copy with locked mounts"

    def command(self) -> str:
        """Return the shell's way."""
        return "nsenter --mount=…"

    def apply(self, context: Context) -> None:
        """Join it; root and working directory are its root then."""
        locked = context.number("mount-namespace")
        namespaces.setns(locked, const.CLONE_NEWNS)
        os.close(locked)
