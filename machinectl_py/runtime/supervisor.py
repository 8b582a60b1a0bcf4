"""Builds a machine: the supervisor's half of a plan, up to the payload's execve.

Used by the forked supervisor, by the foreground `run`, and again for each reboot.
"""

from __future__ import annotations

import errno
import os
import time

from machinectl_py.codec import encode
from machinectl_py.errors import PymachineError, StepError
from machinectl_py.kernel import cgroupfs
from machinectl_py.kernel.process import pidfd_send_signal
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.layout import machine_dir
from machinectl_py.plan.build_security import persona
from machinectl_py.plan.users import ids_of
from machinectl_py.runtime import init_wrapper
from machinectl_py.runtime.state import MachineState, write_state, write_whole
from machinectl_py.runtime.walk import Aborted, Peer, Walk, failure, print_warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.context import Context
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step
    from machinectl_py.runtime.state import TraceEntry


class Build:
    """A machine that is being built by this process."""

    def __init__(self, walk: Walk, spec: MachineSpec, facts: HostFacts) -> None:
        """Lend the steps the hooks of a supervisor."""
        self.walk, self.spec, self.facts = walk, spec, facts
        self.context: Context = walk.context
        self.executing = self.executed = False
        self.launcher_done = "launcher" in walk.places
        self.other_trace: list[list[int]] = []
        self.standing_trace: list[TraceEntry] = []  # of steps that an earlier boot has walked
        self.phase = "opening"
        self.boots = 1
        self.started = time.time_ns() // 1000
        self.started_monotonic = time.monotonic_ns() // 1000
        ours, theirs = Peer.pair()
        self._inside, self._theirs = ours, theirs
        self.context.hooks.become_init = self._become_init
        self.context.hooks.publish = self.publish
        walk.on_message = self._heard

    def run(self, start: int = 0) -> None:
        """Walk the steps, and wait until the payload runs.

        Raises:
            PymachineError: a step failed, here or in another place.
            Aborted: the launcher gave up.
        """
        init_wrapper.preload()
        after = self.walk.after

        def meet_child(step: Step) -> None:
            if step.name == "clone-payload":
                self._theirs.close()
                self.walk.peers["inside"] = self._inside
            after(step)

        self.walk.after = meet_child
        try:
            self.walk.run(start)
        except StepError as error:
            self._raise_inside(error)
            raise
        while not (self.executed and self.launcher_done):
            self.walk.turn()
        self._pass_on(self.context.warnings)
        self.phase = "running"
        self.publish()
        rows = (*self.walk.trace, *self.other_trace)
        entries = [*self.standing_trace, *(self.walk.trace_entry(*row) for row in rows)]
        entries.sort(key=lambda entry: entry.index)
        text = encode([entry.to_data() for entry in entries])
        write_whole(f"{machine_dir(self.spec.name)}/trace.json", text)

    def _raise_inside(self, error: StepError) -> None:
        """Raise what PID 1 failed with, if our step failed since that is gone."""
        inside = self.walk.peers.get("inside")
        while error.errno == errno.ESRCH and inside and (received := inside.receive()):
            if "failed" in received[0]:
                raise failure(received[0]["failed"]) from error

    def _become_init(self) -> NoReturn:
        self._inside.close()
        init_wrapper.become_init(self.walk, self._theirs)

    def publish(self) -> None:
        """Write the machine's state."""
        context, spec = self.context, self.spec
        leader = context.number("leader")
        try:
            born = start_ticks(leader)
        except OSError:  # it has ended already and will be reaped as any
            born = 0
        write_state(
            MachineState(
                name=spec.name,
                leader=leader,
                leader_start=born,
                supervisor=os.getpid(),
                phase="running" if self.phase == "running" else "opening",
                root=spec.root,
                image=spec.rootfs.made_from,
                driver=_driver(spec, self.facts),
                machine_id=spec.machine_id,
                kind=spec.payload.kind,
                service=spec.service,
                manager=self.facts.manager,
                unit=context.text("unit"),
                cgroup=context.text("cgroup"),
                registered="registered" in context.slots,
                private_network=spec.network.kind != "host",
                network_interfaces=tuple(filter(None, (self._number("interface"),))),
                capabilities=spec.capabilities,
                no_new_privileges=spec.no_new_privileges,
                seccomp=str(context.slots.get("seccomp", "")),
                started=self.started,
                started_monotonic=self.started_monotonic,
                clock_offset=self._number("clock-offset"),
                boots=self.boots,
                cpu_affinity=spec.cpu_affinity,
                labels=spec.labels,
                persona=(
                    persona(spec.personality, self.facts.security) if spec.personality else -1
                ),
                uid_base=context.number("id-base") if "id-base" in context.slots else 0,
                uid_count=self._id_count(),
            )
        )

    def _number(self, slot: str) -> int:
        value = self.context.slots.get(slot, 0)
        return value if isinstance(value, int) else 0

    def _id_count(self) -> int:
        """Return how many ids the machine has from its base on; 0 without a user namespace."""
        users = self.spec.users
        return 0 if users.mode == "no" else ids_of(users)

    def _heard(self, peer: str, message: dict[str, Any]) -> None:
        self.other_trace += message.get("trace", [])
        self._pass_on(message.get("warnings", []))
        if "failed" in message:
            raise failure(message["failed"])
        if "abort" in message or (peer == "launcher" and "gone" in message):
            raise Aborted
        if message.get("executing"):
            self.executing = True
        if message.get("done"):
            self.launcher_done = True
        if peer == "inside" and "gone" in message:
            if not self.executing:
                raise PymachineError("The init wrapper was killed before it could start the init")
            self.executed = True

    def _pass_on(self, warnings: list[str]) -> None:
        """Have the user see warnings: by the launcher, or by ourselves where we are it."""
        launcher = self.walk.peers.get("launcher")
        if launcher and warnings:
            launcher.send({"warnings": warnings})
        elif warnings:
            print_warnings(warnings)

    def kill(self) -> None:
        """Kill what was born, and wait for it; let go of what it should have inherited."""
        self.context.rejoin_mounts()
        self.context.close_mounts()
        if "leader-pidfd" in self.context.slots:
            try:
                pidfd_send_signal(self.context.number("leader-pidfd"), 9)
            except ProcessLookupError:
                pass
            try:
                os.waitpid(self.context.number("leader"), 0)
            except ChildProcessError:
                pass
        if "cgroup" in self.context.slots:
            cgroupfs.remove(f"{self.context.text('cgroup')}/payload", timeout=10)


def _driver(spec: MachineSpec, facts: HostFacts) -> str:
    """Return how the root came from its image; "" where it is used in place."""
    if spec.rootfs.ephemeral and not spec.rootfs.image:
        return "btrfs" if facts.mounts.snapshot else "overlay"
    return spec.rootfs.driver
