"""Users of the host inside: their records in /run/host/userdb, and their homes."""

from __future__ import annotations

import os

from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.plan.bind_users import HOMES, BoundUser, record_files
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_USERDB = "/run/host/userdb"


class CloneHome(Step):
    """Take a detached copy of the mounts of a home."""

    name = "clone-home"
    place = "supervisor"
    man = "open_tree(2)"
    because = "before the birth: inside, no path of the host leads anywhere"

    user: str
    home: str

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.user}"

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {self.home}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot, named by the user."""
        return (f"home:{self.user}",)

    def apply(self, context: Context) -> None:
        """Clone it."""
        context.give(self.given_slots()[0], kernel_mount.open_slave_tree(self.home))


class BindUsers(Step):
    """Write the records that nss-systemd inside reads, and mount the homes."""

    name = "bind-users"
    man = "nss-systemd(8)"
    because = "before /run/host turns read-only"

    users: tuple[BoundUser, ...]
    shell: str
    groups: tuple[str, ...]

    def describe(self) -> str:
        """Return the act."""
        users = ", ".join(f"{user.host.name} as {user.uid}" for user in self.users)
        return f"write records of {users} in {_USERDB}, bind the homes in {HOMES}"

    def command(self) -> str:
        """Return the shell's way."""
        homes = (f"mount --rbind {u.host.home} {HOMES}/{u.host.name}" for u in self.users)
        return " && ".join(homes)

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots of the homes."""
        return tuple(f"home:{user.host.name}" for user in self.users)

    def apply(self, context: Context) -> None:
        """Write each record under the name, with a link by the number."""
        for directory in (HOMES, _USERDB):
            os.mkdir(directory, 0o755)
        for user in self.users:
            for name, text, mode in record_files(user, self.shell, self.groups):
                self._write(name, text, mode, user)
            place = f"{HOMES}/{user.host.name}"
            os.mkdir(place, 0o755)
            tree = context.number(f"home:{user.host.name}")
            target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            kernel_mount.move_mount(tree, target)
            os.close(target)
            os.close(tree)

    @staticmethod
    def _write(name: str, text: str, mode: int, user: BoundUser) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(f"{_USERDB}/{name}", flags, mode)
        os.fchmod(fd, mode)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)
        suffix = name.removeprefix(f"{user.host.name}.")
        if suffix != name:
            os.symlink(name, f"{_USERDB}/{user.uid}.{suffix}")
