"""From the host's side of the birth of PID 1: sockets, namespaces, clone, publication."""

from __future__ import annotations

import os
import time

from machinectl_py.config.spec import SeccompSpec
from machinectl_py.kernel import namespaces
from machinectl_py.kernel.const import CLONE_NEWTIME
from machinectl_py.layout import machine_dir
from machinectl_py.plan.ports import RegisterRequest
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class StartSupervisor(Step):
    """Begin the process that lives beside the machine."""

    name = "start-supervisor"
    place = "launcher"
    man = "fork(2)"
    because = "systemd starts a scope around processes that exist"
    lifetime = "process"
    takes = ("lock",)
    gives = ("supervisor",)

    foreground: bool

    def describe(self) -> str:
        """Return the act."""
        if self.foreground:
            return "be the supervisor, in the foreground"
        return "fork the supervisor, in a session of its own"

    def command(self) -> str:
        """Return the shell's way."""
        return "" if self.foreground else "setsid …"

    def apply(self, context: Context) -> None:
        """Fork, or go on as both."""
        supervisor = os.getpid() if self.foreground else context.hooks.fork_supervisor()
        context.give("supervisor", supervisor)


class OpenNotifySocket(Step):
    """Make the socket on which the machine's init reports; it gets its name inside."""

    name = "open-notify-socket"
    place = "supervisor"
    man = "sd_notify(3)"
    because = "the child inherits it and gives it a name in its own /run/host"
    lifetime = "process"
    gives = ("notify",)

    def describe(self) -> str:
        """Return the act."""
        return "open a datagram socket for sd_notify, with credentials"

    def apply(self, context: Context) -> None:
        """Open it unbound, with SO_PASSCRED, since only PID 1 is believed."""
        import _socket

        notify = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        notify.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        context.give("notify", notify.detach())


class OpenControlSocket(Step):
    """Make the socket by which `console` and `poweroff` reach the supervisor."""

    name = "open-control-socket"
    place = "supervisor"
    man = "unix(7)"
    because = "before the machine is shown to other verbs"
    lifetime = "process"
    takes = ("lock",)
    gives = ("control",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"listen on {machine_dir(self.machine)}/control"

    def apply(self, context: Context) -> None:
        """Bind it for root alone; it goes with the state directory."""
        import _socket

        path = f"{machine_dir(self.machine)}/control"
        if os.path.lexists(path):  # of the boot before
            os.unlink(path)
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        control = _socket.socket(_socket.AF_UNIX, kind)
        mask = os.umask(0o077)
        try:
            control.bind(path)
        finally:
            os.umask(mask)
        control.listen(8)
        context.give("control", control.detach())


class PrepareSeccomp(Step):
    """Compile the filter of system calls, or take it from the cache of compiled ones."""

    name = "prepare-seccomp"
    place = "supervisor"
    man = "seccomp(2)"
    because = "compiled outside: libseccomp and its memory stay out of the machine"
    lifetime = "process"
    gives = ("seccomp",)

    capabilities: int
    seccomp: SeccompSpec

    def describe(self) -> str:
        """Return the act."""
        return "prepare the allow-list of system calls"

    def apply(self, context: Context) -> None:
        """Give the path of the compiled programs."""
        from machinectl_py.plan.seccomp_cache import program_path

        context.give("seccomp", program_path(self.capabilities, self.seccomp))


class NewTimeNamespace(Step):
    """Make a time namespace whose clocks start as told."""

    name = "new-time-namespace"
    place = "supervisor"
    man = "time_namespaces(7)"
    because = "clone3 cannot make one; it is entered by the children born after this"
    lifetime = "namespace"
    gives = ("clock-offset",)

    monotonic: int = 0  # where CLOCK_MONOTONIC starts, in nanoseconds
    boottime: int = 0  # where CLOCK_BOOTTIME starts, in nanoseconds

    def describe(self) -> str:
        """Return the act."""
        clocks = f"monotonic {self.monotonic / 1e9:g} s, boottime {self.boottime / 1e9:g} s"
        starts = clocks if self.monotonic or self.boottime else "its clocks at zero"
        return f"unshare CLONE_NEWTIME, {starts}"

    def command(self) -> str:
        """Return the shell's way."""
        return "unshare --time --monotonic=START-NOW --boottime=START-NOW …"

    def apply(self, context: Context) -> None:
        """Unshare it and set both offsets while it is empty."""
        namespaces.unshare(CLONE_NEWTIME)
        ours = namespaces.time_offsets()
        monotonic = self.monotonic - time.monotonic_ns()
        boottime = self.boottime - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        namespaces.set_time_offsets(ours["monotonic"] + monotonic, ours["boottime"] + boottime)
        context.give("clock-offset", monotonic)


class ClonePayload(Step):
    """Give birth to PID 1 in its new namespaces and in its cgroup."""

    name = "clone-payload"
    place = "supervisor"
    man = "clone3(2)"
    because = "one call for all, as all that follows inside needs them"
    lifetime = "namespace"
    takes = ("payload-cgroup",)
    gives = ("leader", "leader-pidfd")

    flags: int
    own_time: bool
    handed: tuple[str, ...] = ()  # slots of descriptors that are the child's alone

    def describe(self) -> str:
        """Return the act."""
        return f"clone3 {namespaces.flag_text(self.flags)}|CLONE_INTO_CGROUP"

    def command(self) -> str:
        """Return the shell's way."""
        return "unshare --mount --pid --ipc --uts --fork …"

    def apply(self, context: Context) -> None:
        """Clone; the child goes its own way, the parent's next children stay in our time."""
        pid, pidfd = namespaces.clone3(self.flags, context.number("payload-cgroup"))
        if pid == 0:
            context.hooks.become_init()
        context.give("leader", pid)
        context.give("leader-pidfd", pidfd)
        os.close(context.number("payload-cgroup"))
        context.let_go(self.handed)
        if self.own_time:
            ours = os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(ours, CLONE_NEWTIME)
            os.close(ours)


class RegisterMachine(Step):
    """Enter the machine in systemd-machined's list."""

    name = "register-machine"
    place = "launcher"
    man = "org.freedesktop.machine1(5) RegisterMachineWithNetwork"
    because = "machined wants the leader in its scope; meanwhile the machine mounts"
    lifetime = "host"
    per_boot = True
    takes = ("leader", "cgroup")
    gives = ("registered",)

    request: RegisterRequest
    has_link: bool = False  # of the host's that leads to the machine

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots, with that of the link."""
        return (*self.takes, "interface") if self.has_link else self.takes

    def describe(self) -> str:
        """Return the act."""
        return f"register {self.request.name} with systemd-machined"

    def apply(self, context: Context) -> None:
        """Register it."""
        request = self.request.replace(leader=context.number("leader"))
        if self.has_link:
            request = request.replace(network_interfaces=(context.number("interface"),))
        context.hooks.registrar().register(request)
        context.give("registered", 1)

    def undo(self, context: Context) -> None:
        """Take it out, unless the name is another leader's by now."""
        leader = context.slots.get("leader", 0)
        assert isinstance(leader, int)
        context.hooks.registrar().unregister(self.request.name, leader)


class PublishState(Step):
    """Write down what the other verbs need to find the machine."""

    name = "publish-state"
    place = "supervisor"
    man = "rename(2)"
    because = "as soon as there is a leader, so that a verb can find and end it"
    lifetime = "process"
    takes = ("leader", "unit", "cgroup")

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"write {machine_dir(self.machine)}/state.json"

    def apply(self, context: Context) -> None:
        """Write it by the runtime, which owns its form."""
        context.hooks.publish()
