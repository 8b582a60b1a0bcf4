"""What a step is, and the plan that steps make up."""

from __future__ import annotations

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal

    from machinectl_py.plan.context import Context

    Place = Literal["launcher", "supervisor", "inside"]
    Lifetime = Literal["process", "namespace", "host"]

# The places in the order of the processes' birth.
PLACES: tuple[Place, ...] = ("launcher", "supervisor", "inside")


class Step(Record):
    """One act of a plan. The fields are its inputs only; what it is stands in the class.

    Attributes:
        name: of the kind of step, as in the journal.
        place: the process that applies it.
        man: the manual page of the kernel call, or of the interface, behind it.
        because: the reason for its standing here in the order.
        lifetime: what its effect ends with; only "host" is journaled and undone.
        per_boot: with lifetime "host": undone and done again when the machine reboots.
        takes: slots that must be filled before it.
        gives: slots that it fills.
    """

    name: ClassVar[str] = ""
    place: ClassVar[Place] = "inside"
    man: ClassVar[str] = ""
    because: ClassVar[str] = ""
    lifetime: ClassVar[Lifetime] = "namespace"
    per_boot: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()

    def label(self) -> str:
        """Return the step's own name, stable and public: "mount /dev" among the mounts."""
        return self.name

    def describe(self) -> str:
        """Return the act in the kernel's words, as in "mount tmpfs on /dev mode=0755,nosuid"."""
        raise NotImplementedError

    def command(self) -> str:
        """Return the line that would do the same in a shell, or "" if there is none."""
        return ""

    def prepare(self) -> None:
        """Import what `apply` needs and is slow to import, while its process waits for another."""

    def apply(self, context: Context) -> None:
        """Do it.

        Raises:
            OSError: a kernel call failed.
            PymachineError: something else refused.
        """
        raise NotImplementedError

    def undo(self, context: Context) -> None:
        """Take back what has lifetime "host"; nothing if that is gone or another's by now."""

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots that this very step takes; some take more by their fields."""
        return self.takes

    def given_slots(self) -> tuple[str, ...]:
        """Return the slots that this very step gives."""
        return self.gives


class MovableStep(Step):
    """A step that PID 1 can take, or the supervisor for it where PID 1 may not."""

    place: Place = "inside"  # type: ignore[misc]  # of each such step its own


class Plan(Record):
    """The ordered steps that make a machine of a spec on a host."""

    steps: tuple[Step, ...]

    def __len__(self) -> int:
        """Return how many steps there are."""
        return len(self.steps)

    def rows(self) -> list[dict[str, Any]]:
        """Return the plan as data for `plan --json`: one object per step, in order."""
        return [
            {
                "index": index,
                "name": step.label(),
                "place": step.place,
                "describe": step.describe(),
                "call": step.man,
                "command": step.command(),
                "because": step.because,
                "lifetime": step.lifetime,
                "takes": list(step.needed_slots()),
                "gives": list(step.given_slots()),
            }
            for index, step in enumerate(self.steps, 1)
        ]


def check_slots(steps: tuple[Step, ...]) -> None:
    """Hold that each slot is given before it is taken, and once.

    With a total order and this rule, no process can wait for ever for another.

    Raises:
        ValueError: a step takes what is not given before it, or gives what is given already.
    """
    given: set[str] = set()
    for index, step in enumerate(steps, 1):
        for slot in step.needed_slots():
            if slot not in given:
                raise ValueError(
                    f"step {index}, {step.label()}: slot '{slot}' is not given before it"
                )
        for slot in step.given_slots():
            if slot in given:
                raise ValueError(f"step {index}, {step.label()}: slot '{slot}' is given already")
            given.add(slot)
