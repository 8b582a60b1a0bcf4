"""What a step finds around it when it is applied: the slots, and the doors to other layers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.ports import CgroupManager, Registrar

    SlotValue = int | str


class Context:
    """The surroundings of the steps in one process.

    Slots hold numbers, strings and descriptors. Which slots are descriptors is known by name
    (`DESCRIPTOR_SLOTS`), so that they travel between processes as SCM_RIGHTS.
    """

    def __init__(self, spec: MachineSpec, directory: str) -> None:
        """Begin with no slot filled.

        Args:
            spec: for steps that publish it; steps read their own fields for all else.
            directory: the machine's state directory.
        """
        self.spec = spec
        self.directory = directory
        self.slots: dict[str, SlotValue] = {}
        self.manager: CgroupManager | None = None
        self.registrar: Registrar | None = None
        self.become_init: Callable[[], NoReturn] | None = None
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

    def give(self, slot: str, value: SlotValue) -> None:
        """Fill a slot."""
        self.slots[slot] = value

    def require_manager(self) -> CgroupManager:
        """Return the cgroup manager that the runtime handed in."""
        assert self.manager is not None
        return self.manager

    def require_registrar(self) -> Registrar:
        """Return the registrar that the runtime handed in."""
        assert self.registrar is not None
        return self.registrar


# Slots whose number is a descriptor: it is passed on, not copied, between processes.
DESCRIPTOR_SLOTS = frozenset({"lock", "console", "leader-pidfd"})
