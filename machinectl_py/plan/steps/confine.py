"""What PID 1 is called, allowed and limited to."""

from __future__ import annotations

import os

from machinectl_py.config.spec import Rlimit
from machinectl_py.kernel import capabilities, const, namespaces, netdevice, process
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class SetHostname(Step):
    """Name the machine."""

    name = "set-hostname"
    man = "sethostname(2)"
    because = "an init keeps the name that it finds"

    hostname: str

    def describe(self) -> str:
        """Return the act."""
        return f"sethostname {self.hostname}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"hostname {self.hostname}"

    def apply(self, context: Context) -> None:
        """Set it in the new UTS namespace."""
        namespaces.sethostname(self.hostname)


class LoopbackUp(Step):
    """Bring up the loopback link of the private network namespace."""

    name = "loopback-up"
    man = "netdevice(7)"
    because = "a new network namespace has it down"

    def describe(self) -> str:
        """Return the act."""
        return "set the link lo up"

    def command(self) -> str:
        """Return the shell's way."""
        return "ip link set lo up"

    def apply(self, context: Context) -> None:
        """Set it up."""
        netdevice.set_up("lo")


class NewKeyring(Step):
    """Leave the caller's session keyring behind."""

    name = "new-keyring"
    man = "keyctl(2)"
    because = "keys of the one who starts a machine are not the machine's"

    def describe(self) -> str:
        """Return the act."""
        return "join a new session keyring"

    def command(self) -> str:
        """Return the shell's way."""
        return "keyctl session - …"

    def apply(self, context: Context) -> None:
        """Join it; a kernel without keyrings has none to leave."""
        process.join_new_keyring()


class SetRlimits(Step):
    """Set the resource limits of PID 1."""

    name = "set-rlimits"
    man = "setrlimit(2)"
    because = "the caller's limits are no business of the machine"

    rlimits: tuple[Rlimit, ...]
    after_raise: bool = False  # the supervisor raises hard limits first

    def needed_slots(self) -> tuple[str, ...]:
        """Wait for the supervisor, if it has to raise any."""
        return ("rlimits-raised",) if self.after_raise else ()

    def describe(self) -> str:
        """Return the act."""
        return "setrlimit " + " ".join(
            f"{limit.name}={_text(limit.soft)}:{_text(limit.hard)}" for limit in self.rlimits
        )

    def command(self) -> str:
        """Return the shell's way."""
        return "prlimit …"

    def apply(self, context: Context) -> None:
        """Set each; where the kernel lets none be raised, the nearest below."""
        import resource

        for limit in self.rlimits:
            number = getattr(resource, f"RLIMIT_{limit.name}", const.RLIMIT_LOCKS)
            try:
                resource.setrlimit(number, (limit.soft, limit.hard))
            except ValueError:
                # Raising a hard limit wants CAP_SYS_RESOURCE, which a nested host may lack.
                hard = _lower(limit.hard, resource.getrlimit(number)[1])
                resource.setrlimit(number, (_lower(limit.soft, hard), hard))


class SetLeaderRlimits(Step):
    """Set the resource limits of PID 1 from outside."""

    name = "set-leader-rlimits"
    place = "supervisor"
    man = "prlimit(2)"
    because = "in a user namespace no hard limit can be raised"
    takes = ("leader",)
    gives = ("limits",)

    rlimits: tuple[Rlimit, ...]

    def describe(self) -> str:
        """Return the act."""
        return "prlimit PID 1 " + " ".join(
            f"{limit.name}={_text(limit.soft)}:{_text(limit.hard)}" for limit in self.rlimits
        )

    def command(self) -> str:
        """Return the shell's way."""
        return "prlimit --pid LEADER …"

    def apply(self, context: Context) -> None:
        """Set each; where the kernel lets none be raised, the nearest below."""
        import resource

        leader = context.number("leader")
        for limit in self.rlimits:
            number = getattr(resource, f"RLIMIT_{limit.name}")
            try:
                resource.prlimit(leader, number, (limit.soft, limit.hard))
            except PermissionError:
                hard = _lower(limit.hard, resource.prlimit(leader, number)[1])
                resource.prlimit(leader, number, (_lower(limit.soft, hard), hard))
        context.give("limits", 1)


def _text(value: int) -> str:
    return "infinity" if value < 0 else str(value)


def _lower(one: int, other: int) -> int:
    """Return the lower of two limits, of which -1 is infinity."""
    if one < 0 or other < 0:
        return max(one, other)
    return min(one, other)


class NoNewPrivileges(Step):
    """Let no program inside gain privileges by executing."""

    name = "no-new-privileges"
    man = "prctl(2) PR_SET_NO_NEW_PRIVS"
    because = "as --no-new-privileges asks"

    def describe(self) -> str:
        """Return the act."""
        return "prctl PR_SET_NO_NEW_PRIVS"

    def command(self) -> str:
        """Return the shell's way."""
        return "setpriv --no-new-privs …"

    def apply(self, context: Context) -> None:
        """Set it."""
        process.set_no_new_privileges()


class OpenSeccomp(Step):
    """Open the compiled filter."""

    name = "open-seccomp"
    place = "supervisor"
    man = "seccomp(2)"
    because = "before the birth, as the cache is for root of the host alone"
    takes = ("seccomp",)
    gives = ("seccomp-programs",)

    def describe(self) -> str:
        """Return the act."""
        return "open the compiled seccomp programs"

    def apply(self, context: Context) -> None:
        """Open it; the program is read where it is loaded."""
        fd = os.open(context.text("seccomp"), os.O_RDONLY | os.O_CLOEXEC)
        context.give("seccomp-programs", fd)


class LoadSeccomp(Step):
    """Load the filter of system calls."""

    name = "load-seccomp"
    man = "seccomp(2)"
    because = "as late as can be: the filter holds for what comes after it"
    takes = ("seccomp-programs",)

    def describe(self) -> str:
        """Return the act."""
        return "load the seccomp programs"

    def apply(self, context: Context) -> None:
        """Load it."""
        from machinectl_py.kernel.seccomp import load_filters, read_programs

        load_filters(read_programs(context.number("seccomp-programs")))


class LimitCapabilities(Step):
    """Bound PID 1 and all its children to the machine's capabilities."""

    name = "limit-capabilities"
    man = "capabilities(7)"
    because = "after all that needs them"

    capabilities: int

    def describe(self) -> str:
        """Return the act."""
        names = capabilities.mask_names(self.capabilities)
        return f"bound to {len(names)} capabilities: {' '.join(names)}"

    def command(self) -> str:
        """Return the shell's way."""
        names = capabilities.mask_names(self.capabilities)
        listed = ",".join(f"+{name[4:].lower()}" for name in names)
        return f"setpriv --bounding-set=-all,{listed} …"

    def apply(self, context: Context) -> None:
        """Drop the others."""
        capabilities.limit_capabilities(self.capabilities)


class RaiseAmbient(Step):
    """Give the payload capabilities that it keeps as any user."""

    name = "raise-ambient"
    man = "capabilities(7)"
    because = "after the user has changed, which empties the set, and after it is bounded"

    ambient: int

    def describe(self) -> str:
        """Return the act."""
        return f"raise the ambient capabilities {' '.join(capabilities.mask_names(self.ambient))}"

    def command(self) -> str:
        """Return the shell's way."""
        names = capabilities.mask_names(self.ambient)
        listed = ",".join(f"+{name[4:].lower()}" for name in names)
        return f"setpriv --inh-caps={listed} --ambient-caps={listed} …"

    def apply(self, context: Context) -> None:
        """Raise them."""
        capabilities.raise_ambient(self.ambient)
