"""A network namespace that exists already, for the machine to be born in."""

from __future__ import annotations

import os

from machinectl_py.kernel import const, namespaces
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class JoinNetwork(Step):
    """Go into a network namespace, for the child to be born in it."""

    name = "join-network"
    place = "supervisor"
    man = "setns(2)"
    because = "from a user namespace of its own, the child could not join it any more"
    lifetime = "process"
    takes = ("lock",)
    gives = ("own-network",)

    path: str

    def describe(self) -> str:
        """Return the act."""
        return f"join the network namespace {self.path}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"nsenter --net={self.path} …"

    def apply(self, context: Context) -> None:
        """Join it, and keep the way back; the kernel refuses any other kind of file."""
        context.give("own-network", os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        namespace = os.open(self.path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            namespaces.setns(namespace, const.CLONE_NEWNET)
        finally:
            os.close(namespace)


class LeaveNetwork(Step):
    """Come back to our own network namespace."""

    name = "leave-network"
    place = "supervisor"
    man = "setns(2)"
    because = "the child is born; we ourselves belong to the host's network"
    lifetime = "process"
    takes = ("own-network", "leader")

    def describe(self) -> str:
        """Return the act."""
        return "return to the host's network namespace"

    def command(self) -> str:
        """Return the shell's way."""
        return ""

    def apply(self, context: Context) -> None:
        """Join ours again."""
        ours = context.number("own-network")
        namespaces.setns(ours, const.CLONE_NEWNET)
        os.close(ours)
