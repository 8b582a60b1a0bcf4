"""What a step finds around it when it is applied: the slots, and the doors to other layers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from machinectl_py.plan.ports import CgroupManager, Registrar

    SlotValue = int | str

# Slots whose number is a descriptor, which is passed on as such from process to process.
DESCRIPTOR_SLOTS = frozenset({"console", "kmsg", "proc", "sysfs"})
# Those that are nobody's any more but the taker's.
HANDED_OVER = frozenset({"proc", "sysfs"})


class Hooks:
    """What the runtime lends to the steps, since the plan may not import upwards."""

    manager: Callable[[str], CgroupManager]  # by its name
    registrar: Callable[[], Registrar]
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

    def warn(self, text: str) -> None:
        """Tell the user of something that could not be done and need not be."""
        self.warnings.append(text)

    def give(self, slot: str, value: SlotValue) -> None:
        """Fill a slot."""
        self.slots[slot] = value
