"""The machine's clocks where we may not set any: in a machine, say, without CAP_SYS_TIME.

A time namespace belongs to the user namespace of its maker, and who may set its clocks is told by
that: root of a new user namespace may. PID 1 goes there itself, since we could not return.
"""

from __future__ import annotations

import os
import time

from machinectl_py.kernel import namespaces
from machinectl_py.kernel.time_namespace import enter_new_time, enter_time, make_time_namespace
from machinectl_py.plan.context import APART
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_SHARED, _ITS_OWN = -2, -1  # in the slot, in the place of a descriptor


class PrepareClocks(Step):
    """Make a time namespace that PID 1 will join, or say how the clocks of its own start."""

    name = "prepare-clocks"
    place = "supervisor"
    man = "time_namespaces(7)"
    because = "we lack CAP_SYS_TIME, which root of a user namespace has in it"
    gives = (APART, "clock-offset", "clock-offsets")

    monotonic: int = 0  # where CLOCK_MONOTONIC starts, in nanoseconds
    boottime: int = 0  # where CLOCK_BOOTTIME starts, in nanoseconds
    own_users: bool = False  # PID 1 is root of a user namespace of its own

    def describe(self) -> str:
        """Return the act."""
        if self.own_users:
            return "see what is to be added to the clocks"
        return "unshare CLONE_NEWTIME by a process in a user namespace apart"

    def apply(self, context: Context) -> None:
        """Do it; where it cannot be done and nobody has asked for it, the clocks are shared."""
        ours = namespaces.time_offsets()
        shift = self.monotonic - time.monotonic_ns()
        since_boot = self.boottime - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        offsets = (ours["monotonic"] + shift, ours["boottime"] + since_boot)
        namespace = _ITS_OWN
        if not self.own_users:
            try:
                namespace = make_time_namespace(*offsets)
            except OSError as error:
                if self.monotonic or self.boottime:
                    raise
                context.warn(f"The machine shares the host's clocks: {error.strerror}")
                namespace, shift = _SHARED, 0
        context.give(APART, namespace)
        context.give("clock-offset", shift)
        context.give("clock-offsets", "{} {}".format(*offsets))


class EnterTimeNamespace(Step):
    """Go on by the machine's clocks."""

    name = "enter-time-namespace"
    man = "setns(2) CLONE_NEWTIME"
    because = "first of all: as another user we could not open /proc/self/ns any more"
    takes = (APART, "clock-offset", "clock-offsets")

    def describe(self) -> str:
        """Return the act."""
        return "setns CLONE_NEWTIME"

    def apply(self, context: Context) -> None:
        """Join the one made outside, or make it."""
        namespace = context.take(APART)
        if namespace == _SHARED:
            return
        if namespace == _ITS_OWN:
            enter_new_time(*map(int, context.text("clock-offsets").split()))
        else:
            enter_time(f"/proc/self/fd/{namespace}")
            os.close(namespace)
        context.clock_offset = context.number("clock-offset")
