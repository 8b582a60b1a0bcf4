"""`pymachine shell`: a login session in a machine."""

from __future__ import annotations

import os

from machinectl_py.cli.verbs.console import tell
from machinectl_py.cli.verbs.exec import SETENV_OPTION, parse_environment
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime.enter import Command, enter, require_may_enter
from machinectl_py.runtime.session import has_systemd, shell
from machinectl_py.runtime.state import require_running
from machinectl_py.runtime.users import find_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "shell [USER@]NAME [OPTION…] [COMMAND [ARGUMENT…]]"
SUMMARY = "Open a shell in a machine, as a login session"
DETAILS = """\
The machine's own systemd starts it, with PAM, as a service container-shell@N; without systemd
inside it is a login shell entered as by 'exec'. By default the user is root and the command the
user's shell. Press ^] three times within a second to leave."""
EXAMPLE = "pymachine shell root@debian"
OPTIONS = (
    Option(name="--uid", value="USER", help="as this user of the machine, by default root"),
    SETENV_OPTION,
)
COMMAND = 1


def run(arguments: Arguments) -> int:
    """Open the session and return the exit status of its command."""
    if not arguments.words:
        raise UsageError("'shell' needs the name of a machine")
    target, *argv = arguments.words
    login_name, _, name = target.rpartition("@")
    state = require_running(name)
    require_may_enter(state)
    user = find_user(state, arguments.text("uid") or login_name or "root")
    command = tuple(argv) or (user.shell, "-l")
    environment = (
        ("TERM", os.environ.get("TERM", "dumb")),
        *parse_environment(arguments.texts("setenv")),
    )
    tell(f"Connected to machine {name}. Press ^] three times within 1s to exit session.")
    if has_systemd(state, "systemd-run"):
        status = shell(state, user.name, command, environment)
    else:
        tell(f"Machine {name} has no systemd-run: no PAM, no session of its own.")
        entered = Command(
            argv=command, environment=environment, user=user.name, working_directory=user.home
        )
        status = enter(state, entered, on_terminal=True)
    tell(f"\nConnection to machine {name} terminated.")
    return status
