"""Locks the mounts of a machine with a user namespace; mount_namespaces(7)."""

from __future__ import annotations

import os

from machinectl_py.kernel import mount_locks
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class StartLocker(Step):
    """Have a process of the host's root at hand that can copy the mount namespace of PID 1."""

    name = "start-locker"
    place = "supervisor"
    man = "mount_namespaces(7)"
    because = "early: PID 1 shall not wait for what else the supervisor does"
    lifetime = "process"
    takes = ("cgroup", "leader-pidfd")
    gives = ("locker", "locker-pid")

    def describe(self) -> str:
        """Return the act."""
        return "fork what will copy the mount namespace of PID 1"

    def apply(self, context: Context) -> None:
        """Start it in the cgroup of the supervisor, as none may be in that above."""
        place = f"{context.text('cgroup')}/supervisor"
        cgroup = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pid, locker = mount_locks.start_locker(context.number("leader-pidfd"), cgroup)
        finally:
            os.close(cgroup)
        context.give("locker", locker)
        context.give("locker-pid", pid)


class LockMounts(Step):
    """Go on in a copy of the mount namespace that was the host's on its way."""

    name = "lock-mounts"
    man = "mount_namespaces(7)"
    because = "root inside cannot undo what was mounted before, only what is from here on"
    takes = ("locker",)
    gives = ("mounts-locked",)

    def describe(self) -> str:
        """Return the act."""
        return "copy the mount namespace into one of the host and back, setns CLONE_NEWNS to that"

    def command(self) -> str:
        """Return the shell's way."""
        return "nsenter --mount -t LEADER unshare --mount nsenter --user -t LEADER unshare --mount"

    def apply(self, context: Context) -> None:
        """Ask for it, and join it."""
        mount_locks.lock_mounts(context.number("locker"))
        context.give("mounts-locked", 1)


class EndLocker(Step):
    """See the process through that has copied the mounts."""

    name = "end-locker"
    place = "supervisor"
    man = "waitpid(2)"
    because = "it ends when it has answered"
    lifetime = "process"
    takes = ("mounts-locked", "locker-pid")

    def describe(self) -> str:
        """Return the act."""
        return "wait for the end of what has copied the mount namespace"

    def apply(self, context: Context) -> None:
        """Reap it."""
        os.waitpid(context.number("locker-pid"), 0)
