"""What all processes of a machine inherit of PID 1: scheduling, limits, personality."""

from __future__ import annotations

import os

from machinectl_py.config.spec import Rlimit
from machinectl_py.kernel import const, process
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class AdjustOomScore(Step):
    """Say how likely the machine is to be killed where memory runs out."""

    name = "adjust-oom-score"
    place = "supervisor"
    man = "proc_pid_oom_score_adj(5)"
    because = "from outside, as a user namespace may not lower it; before the payload is let go"
    lifetime = "namespace"
    takes = ("leader",)

    value: int  # from -1000 to 1000

    def describe(self) -> str:
        """Return the act."""
        return f"adjust the OOM score of PID 1 by {self.value}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"choom -p LEADER -n {self.value}"

    def apply(self, context: Context) -> None:
        """Write it by PID."""
        process.adjust_oom_score(context.number("leader"), self.value)


class RaiseRlimits(Step):
    """Raise the hard limits of PID 1 as far as the spec goes beyond the caller's."""

    name = "raise-rlimits"
    place = "supervisor"
    man = "prlimit(2)"
    because = "from outside: in a user namespace nobody may raise one, only lower it"
    lifetime = "namespace"
    takes = ("leader",)
    gives = ("rlimits-raised",)

    rlimits: tuple[Rlimit, ...]

    def describe(self) -> str:
        """Return the act."""
        return "raise the hard limits " + " ".join(
            f"{limit.name}={'infinity' if limit.hard < 0 else limit.hard}" for limit in self.rlimits
        )

    def command(self) -> str:
        """Return the shell's way."""
        return "prlimit --pid=LEADER …"

    def apply(self, context: Context) -> None:
        """Raise what is lower; where this host may not either, the inside takes the nearest."""
        import resource

        leader = context.number("leader")
        for limit in self.rlimits:
            number = getattr(resource, f"RLIMIT_{limit.name}", const.RLIMIT_LOCKS)
            soft, hard = resource.prlimit(leader, number)
            if hard >= 0 and (limit.hard < 0 or limit.hard > hard):
                try:
                    resource.prlimit(leader, number, (soft, limit.hard))
                except PermissionError:
                    continue
        context.give("rlimits-raised", 1)


class SetAffinity(Step):
    """Keep the machine to some of the processors."""

    name = "set-affinity"
    man = "sched_setaffinity(2)"
    because = "children inherit it, so before there are any"

    processors: tuple[int, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"keep to the processors {','.join(map(str, self.processors))}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"taskset --cpu-list {','.join(map(str, self.processors))} …"

    def apply(self, context: Context) -> None:
        """Set it for this process."""
        os.sched_setaffinity(0, self.processors)


class SetPersonality(Step):
    """Show the machine another architecture of this kernel by uname(2)."""

    name = "set-personality"
    man = "personality(2)"
    because = "execve(2) keeps it; before the filter, which may deny it"

    architecture: str  # systemd's name
    persona: int

    def describe(self) -> str:
        """Return the act."""
        return f"take the personality {self.architecture} ({self.persona:#x})"

    def command(self) -> str:
        """Return the shell's way."""
        return "setarch linux32 …" if self.persona == process.PER_LINUX32 else "setarch linux64 …"

    def apply(self, context: Context) -> None:
        """Set it, flags included."""
        process.set_personality(self.persona)
