"""What a step finds around it when it is applied: the slots, and the doors to other layers."""

from __future__ import annotations

import os

from machinectl_py.kernel.namespaces import rejoin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from machinectl_py.plan.ports import CgroupManager, Registrar, ServiceRunner

    SlotValue = int | str

# Slots whose number is a descriptor, which is passed on as such from process to process.
DESCRIPTOR_SLOTS = frozenset({"console", "kmsg", "locker", "proc", "sysfs", "whole-sysfs"})
# Those that are nobody's any more but the taker's.
HANDED_OVER = frozenset({"locker", "proc", "sysfs", "whole-sysfs"})

# Slots with descriptors that the supervisor keeps as long as the machine lives, over each reboot.
_HELD_PREFIX = "disk:"
# Slots with detached mounts: who made them closes them after the birth, or when it fails.
_MOUNT_PREFIX = "mount:"
# A time namespace that PID 1 is to join, see `steps.clocks`: without it, it is born in its own.
APART = "time-namespace"
# Our mount namespace, root and working directory, while we are in another.
HOME_SLOTS = ("home-mounts", "home-root", "home-directory")


def is_held(slot: str) -> bool:
    """Say whether a slot is kept over reboots."""
    return slot.startswith(_HELD_PREFIX)


def held(slots: dict[str, SlotValue]) -> dict[str, int]:
    """Return the slots whose descriptors are kept over reboots."""
    return {
        slot: value for slot, value in slots.items() if is_held(slot) and isinstance(value, int)
    }


class Hooks:
    """What the runtime lends to the steps, since the plan may not import upwards."""

    manager: Callable[[str], CgroupManager]  # by its name
    registrar: Callable[[], Registrar]
    services: Callable[[], ServiceRunner]
    # Of a link's index, servers and their domain: has the host ask these for its names.
    tell_resolver: Callable[[int, tuple[str, ...], str], None]
    fork_supervisor: Callable[[], int]  # returns its PID, in the launcher alone
    become_init: Callable[[], NoReturn]  # the newborn child goes on as init wrapper
    publish: Callable[[], None]  # write the machine's state for other verbs


class Context:
    """The surroundings of the steps in one process."""

    def __init__(self, hooks: Hooks) -> None:
        """Begin with no slot filled."""
        self.hooks = hooks
        self.slots: dict[str, SlotValue] = {}
        self.warnings: list[str] = []  # for the user: what was passed over
        self.clock_offset = 0  # of this process's CLOCK_MONOTONIC to the host's, nanoseconds

    def number(self, slot: str) -> int:
        """Return a slot that holds a number or a descriptor."""
        value = self.slots[slot]
        assert isinstance(value, int), slot
        return value

    def text(self, slot: str) -> str:
        """Return a slot that holds a string."""
        value = self.slots[slot]
        assert isinstance(value, str), slot
        return value

    def let_go(self, slots: tuple[str, ...]) -> None:
        """Close descriptors that are another process's by now; what is in no slot is none."""
        for slot in slots:
            fd = self.slots.pop(slot, -1)
            if isinstance(fd, int) and fd >= 0:
                os.close(fd)

    def take(self, slot: str) -> int:
        """Empty a slot that holds a descriptor, and return that: the caller closes it."""
        fd = self.number(slot)
        del self.slots[slot]
        return fd

    def rejoin_mounts(self) -> None:
        """Return to our own mount namespace and root, if we have left them for another."""
        if HOME_SLOTS[-1] not in self.slots:
            return
        home = [self.take(slot) for slot in HOME_SLOTS]
        try:
            rejoin(*home)
        finally:
            for fd in home:
                os.close(fd)

    def close_mounts(self) -> None:
        """Let go of the detached mounts that were made here for the machine to inherit."""
        self.let_go(tuple(slot for slot in self.slots if slot.startswith(_MOUNT_PREFIX)))

    def warn(self, text: str) -> None:
        """Tell the user of something that could not be done and need not be."""
        self.warnings.append(text)

    def give(self, slot: str, value: SlotValue) -> None:
        """Fill a slot."""
        self.slots[slot] = value
