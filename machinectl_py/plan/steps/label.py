"""The labels by which SELinux and AppArmor know the machine's processes."""

from __future__ import annotations

from machinectl_py.kernel import labels
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class OpenSelinuxLabel(Step):
    """Open the file that takes the SELinux context."""

    name = "open-selinux-label"
    man = "proc_pid_attr(5)"
    because = "before the pivot: what lies on /proc inside could swallow the label"
    gives = ("selinux-exec",)

    def describe(self) -> str:
        """Return the act."""
        return f"open {labels.ATTRIBUTES}/exec"

    def apply(self, context: Context) -> None:
        """Open it; only this process may write to it."""
        context.give("selinux-exec", labels.open_selinux_exec())


class SetSelinuxLabel(Step):
    """Have the payload run under an SELinux context."""

    name = "set-selinux-label"
    man = "setexeccon(3)"
    because = "it holds for the next execve(2), which is the payload's"
    takes = ("selinux-exec",)

    selinux: str

    def describe(self) -> str:
        """Return the act."""
        return f"take the SELinux context {self.selinux} by execve"

    def command(self) -> str:
        """Return the shell's way."""
        return f"runcon {self.selinux} …"

    def apply(self, context: Context) -> None:
        """Write it."""
        labels.write_selinux_exec(context.number("selinux-exec"), self.selinux)


class OpenApparmorLabel(Step):
    """Open the file that takes the AppArmor profile."""

    name = "open-apparmor-label"
    man = "proc_pid_attr(5)"
    because = "before the pivot: what lies on /proc inside could swallow the label"
    gives = ("apparmor-exec",)

    def describe(self) -> str:
        """Return the act."""
        return f"open {labels.ATTRIBUTES}/apparmor/exec"

    def apply(self, context: Context) -> None:
        """Open it; only this process may write to it."""
        context.give("apparmor-exec", labels.open_apparmor_exec())


class SetApparmorLabel(Step):
    """Have the payload run under an AppArmor profile."""

    name = "set-apparmor-label"
    man = "aa_change_onexec(2)"
    because = "it holds for the next execve(2), which is the payload's"
    takes = ("apparmor-exec",)

    profile: str

    def describe(self) -> str:
        """Return the act."""
        return f"take the AppArmor profile {self.profile} by execve"

    def command(self) -> str:
        """Return the shell's way."""
        return f"aa-exec --profile={self.profile} …"

    def apply(self, context: Context) -> None:
        """Write it."""
        labels.write_apparmor_exec(context.number("apparmor-exec"), self.profile)
