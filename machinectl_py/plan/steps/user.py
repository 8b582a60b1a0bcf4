"""Who the payload runs as."""

from __future__ import annotations

import os

from machinectl_py.errors import NotFoundError
from machinectl_py.kernel import capabilities, process
from machinectl_py.kernel.paths import make_in_root, open_in_root
from machinectl_py.plan.step import Step
from machinectl_py.plan.user_database import ROOT, ask_getent, parse_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context
    from machinectl_py.plan.user_database import User

_LARGEST = 1 << 24  # bytes of a passwd(5) or group(5) that are looked at


class BecomeUser(Step):
    """Become a user of the machine's own database, with its groups; the home is made if missing."""

    name = "become-user"
    man = "setresuid(2)"
    because = "after what needs root, before capabilities are limited for good"
    gives = ("user-name", "user-home")

    user: str  # name or uid
    own_terminal: bool  # standard input, output and error are a terminal of the machine's

    def describe(self) -> str:
        """Return the act."""
        return f"become the user {self.user} of the machine's passwd"

    def command(self) -> str:
        """Return the shell's way."""
        return f"setpriv --reuid={self.user} --init-groups …"

    def apply(self, context: Context) -> None:
        """Look the user up, and change groups, gid and uid, in this order."""
        user = _find(self.user)
        _make_home(user)
        if self.own_terminal:
            for fd in range(3):
                os.fchown(fd, user.uid, user.gid)
        process.set_keep_capabilities()
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        # The effective ones are lost all the same; execve(2) will take the others.
        capabilities.restore_effective()
        context.give("user-name", user.name)
        context.give("user-home", user.home)


def _find(name: str) -> User:
    """Return the user, by the files, else by what nsswitch.conf(5) names besides.

    Raises:
        NotFoundError: there is none.
    """
    user = parse_user(_read("/etc/passwd"), _read("/etc/group"), name)
    if user is None and name in ("root", "0"):
        return ROOT
    user = user or ask_getent(name)
    if user is None:
        raise NotFoundError(f"The machine has no user '{name}'")
    return user


def _read(path: str) -> str:
    """Return a file of the root, links resolved in it; "" if there is none."""
    try:
        fd = open_in_root("/", path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        return file.read(_LARGEST).decode(errors="replace")


def _make_home(user: User) -> None:
    """Make the home if there is none; a root that is read-only has it or not."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(open_in_root(root, user.home, os.O_PATH))
    except FileNotFoundError:
        try:
            home = make_in_root(root, user.home, directory=True)
        except OSError:
            return
        os.chown(f"/proc/self/fd/{home}", user.uid, user.gid)
        os.close(home)
    finally:
        os.close(root)
