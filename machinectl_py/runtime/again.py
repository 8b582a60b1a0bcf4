"""A machine that reboots: what is on the host for as long as it runs stays, the rest is redone."""

from __future__ import annotations

import os
import time

from machinectl_py.layout import machine_dir
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.context import Context
from machinectl_py.runtime.journal import Journal, journaled_slots, undo_journal
from machinectl_py.runtime.recover import make_hooks
from machinectl_py.runtime.state import read_state, read_trace
from machinectl_py.runtime.supervisor import Build
from machinectl_py.runtime.walk import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Plan, Step
    from machinectl_py.runtime.state import TraceEntry


def prepare_again(spec: MachineSpec, facts: HostFacts, kept: dict[str, int]) -> Build:
    """Return what builds the machine once more, by this process.

    Args:
        spec: of the machine.
        facts: of the host, as at the first boot.
        kept: descriptors by their slots: both locks, and what is held over reboots.
    """
    before = read_state(spec.name)
    context = Context(make_hooks())
    context.slots |= {
        **kept,
        "supervisor": os.getpid(),
        "unit": before.unit,
        "cgroup": before.cgroup,
    }
    plan = build_plan(spec, facts)
    gave = journaled_slots(spec.name)
    for step in filter(_stands_already, plan.steps):
        given = {slot: gave[slot] for slot in step.given_slots() if slot in gave}
        context.slots = given | context.slots
    walk = Walk(plan, context, ("launcher", "supervisor"))
    walk.skip = _stands_already
    journal = Journal(spec.name)
    walk.before = journal.before
    walk.after = lambda step: journal.after(step, context)
    build = Build(walk, spec, facts)
    build.boots = before.boots + 1
    build.standing_trace = _standing_trace(plan, spec.name)
    return build


def build_again(build: Build) -> None:
    """Undo what is of one boot alone, then build.

    Raises:
        PymachineError: a step failed; `Build.kill` and cleaning up are the caller's.
    """
    name = build.spec.name
    undo_journal(name, build.context.hooks, {}, per_boot=True)
    notify = f"{machine_dir(name)}/notify"
    if os.path.exists(notify):
        os.unlink(notify)
    build.started_monotonic = time.monotonic_ns() // 1000
    build.run()


def _standing_trace(plan: Plan, name: str) -> list[TraceEntry]:
    """Return the trace of the steps that are not walked again."""
    # By their names: with a port that was added meanwhile, steps have other numbers.
    standing = {s.label(): n for n, s in enumerate(plan.steps, 1) if _stands_already(s)}
    entries = (entry for entry in read_trace(name) if entry.name in standing)
    return [entry.replace(standing=True, index=standing[entry.name]) for entry in entries]


def _stands_already(step: Step) -> bool:
    return not step.per_boot and (step.place == "launcher" or step.lifetime == "host")
