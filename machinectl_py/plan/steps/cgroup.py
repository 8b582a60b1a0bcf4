"""The machine's cgroup: made by the cgroup manager, divided by us; cgroups(7), "Delegation"."""

from __future__ import annotations

import os

from machinectl_py.kernel import cgroupfs
from machinectl_py.kernel.const import CLONE_NEWCGROUP
from machinectl_py.kernel.namespaces import unshare
from machinectl_py.plan.ports import CgroupPlace, CgroupRequest
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class _GetCgroup(Step):
    """Have the manager make the machine's cgroup."""

    place = "launcher"
    lifetime = "host"
    gives = ("unit", "cgroup")

    manager: str
    request: CgroupRequest

    def _start(
        self, context: Context, pids: tuple[int, ...], more: tuple[tuple[str, str], ...] = ()
    ) -> None:
        request = self.request.replace(pids=pids, properties=(*self.request.properties, *more))
        place = context.hooks.manager(self.manager).start(request)
        context.give("unit", place.unit)
        context.give("cgroup", place.cgroup)

    def undo(self, context: Context) -> None:
        """Have the manager take it away, with all that is in it."""
        manager = context.hooks.manager(self.manager)
        if "cgroup" in context.slots:
            place = CgroupPlace(unit=context.text("unit"), cgroup=context.text("cgroup"))
        else:  # killed before the manager answered
            place = manager.locate(self.request)
        manager.remove(place)


class MakeCgroup(_GetCgroup):
    """Make the cgroup in the file system, or take that of the unit that we run in."""

    name = "make-cgroup"
    man = "cgroups(7)"
    because = "PID 1 is born in it: moving a process later costs a grace period of the kernel"
    takes = ("lock",)

    def describe(self) -> str:
        """Return the act."""
        if self.manager == "unit":
            return "take the cgroup of the unit that this runs in"
        return f"make a cgroup for {self.request.name} below pymachine's own"

    def apply(self, context: Context) -> None:
        """Make it, empty."""
        self._start(context, ())


class StartScope(_GetCgroup):
    """Have systemd start a transient scope around the supervisor, and wait for the job."""

    name = "start-scope"
    man = "org.freedesktop.systemd1(5) StartTransientUnit"
    because = "systemd must own the cgroup before anything of the machine lives in it"
    takes = ("lock", "supervisor")

    devices: tuple[str, ...] = ()  # slots with the numbers of block devices that it may use

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots of the devices too."""
        return (*self.takes, *self.devices)

    def describe(self) -> str:
        """Return the act."""
        return f"start the transient scope of {self.request.name} in {self.request.slice}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"systemd-run --scope --slice={self.request.slice} -p Delegate=yes …"

    def apply(self, context: Context) -> None:
        """Start it with the supervisor inside."""
        numbers = [number for slot in self.devices for number in context.text(slot).split(",")]
        allowed = tuple(("DeviceAllow", f"/dev/block/{number} rw") for number in numbers)
        self._start(context, (context.number("supervisor"),), allowed)


class DivideCgroup(Step):
    """Make the cgroups `supervisor` and `payload` in the machine's own."""

    name = "divide-cgroup"
    place = "supervisor"
    man = "cgroups(7)"
    because = "processes may live in leaves only; the init inside gets a subtree of its own"
    takes = ("cgroup",)
    gives = ("payload-cgroup",)

    def describe(self) -> str:
        """Return the act."""
        return "make the cgroups 'supervisor' and 'payload'"

    def command(self) -> str:
        """Return the shell's way."""
        return "mkdir CGROUP/supervisor CGROUP/payload"

    def apply(self, context: Context) -> None:
        """Make both; a payload's of an earlier boot is removed first."""
        base = context.text("cgroup")
        cgroupfs.remove(f"{base}/payload")
        for leaf in ("supervisor", "payload"):
            cgroupfs.make(f"{base}/{leaf}")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        context.give("payload-cgroup", os.open(f"{base}/payload", flags))


class OwnCgroup(Step):
    """Give the cgroup `payload` to root inside, as far as its processes are concerned."""

    name = "own-cgroup"
    place = "supervisor"
    man = "https://systemd.io/CGROUP_DELEGATION"
    because = "an init inside divides its processes; their limits stay the host's"
    takes = ("cgroup", "leader", "id-base")
    gives = ("owned-cgroup",)

    def describe(self) -> str:
        """Return the act."""
        return "chown the cgroup 'payload' and what the kernel delegates of it to the range's root"

    def command(self) -> str:
        """Return the shell's way."""
        return "chown BASE:BASE CGROUP/payload CGROUP/payload/{cgroup.procs,…}"

    def apply(self, context: Context) -> None:
        """Change the owners."""
        base = context.number("id-base")
        cgroupfs.delegate(f"{context.text('cgroup')}/payload", base, base)
        context.give("owned-cgroup", 1)


class EnterSupervisorCgroup(Step):
    """Move the supervisor into its own cgroup."""

    name = "enter-supervisor-cgroup"
    place = "supervisor"
    man = "cgroups(7)"
    because = "after the birth, since the move waits 10 ms, in which the machine mounts"
    lifetime = "process"
    takes = ("cgroup", "leader")

    def describe(self) -> str:
        """Return the act."""
        return "move the supervisor into the cgroup 'supervisor'"

    def command(self) -> str:
        """Return the shell's way."""
        return "echo SUPERVISOR > CGROUP/supervisor/cgroup.procs"

    def apply(self, context: Context) -> None:
        """Move this process, unless it is there since an earlier boot."""
        cgroupfs.move(f"{context.text('cgroup')}/supervisor", os.getpid())


class DelegateControllers(Step):
    """Hand the machine's controllers on to its cgroup `payload`."""

    name = "delegate-controllers"
    place = "supervisor"
    man = "cgroups(7)"
    because = "only a cgroup without processes can; the init inside looks for them once"
    lifetime = "process"
    takes = ("cgroup", "payload-cgroup")
    gives = ("controllers",)

    def describe(self) -> str:
        """Return the act."""
        return "enable the cgroup's controllers for 'payload'"

    def command(self) -> str:
        """Return the shell's way."""
        return "echo +CONTROLLER … > CGROUP/cgroup.subtree_control"

    def apply(self, context: Context) -> None:
        """Enable those that there are; on a hybrid host there may be none."""
        context.give("controllers", " ".join(cgroupfs.enable_all(context.text("cgroup"))))


class UnshareCgroup(Step):
    """Make the payload's cgroup the root of what is seen inside."""

    name = "unshare-cgroup"
    man = "cgroup_namespaces(7)"
    because = "the root of the new namespace is the cgroup that PID 1 was born in"
    lifetime = "namespace"

    def describe(self) -> str:
        """Return the act."""
        return "leave the cgroup namespace for one rooted at 'payload'"

    def command(self) -> str:
        """Return the shell's way."""
        return "unshare --cgroup …"

    def apply(self, context: Context) -> None:
        """Unshare it."""
        unshare(CLONE_NEWCGROUP)
