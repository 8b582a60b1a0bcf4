"""`pymachine exec`: a command in a running machine."""

from __future__ import annotations

import os

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime.enter import Command, enter
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "exec NAME [OPTION…] [--] COMMAND [ARGUMENT…]"
SUMMARY = "Execute a command in a machine"
DETAILS = """\
It joins the namespaces and the cgroup of the machine's leader and is limited as it is, with an
environment of the machine's own. The exit status is the command's, 128+n for signal n, 127 if
there is no such command. On a terminal the command gets one of the machine's, which ^] three
times within a second leaves. For a session with PAM see 'shell'."""
EXAMPLE = "pymachine exec debian -- systemctl --failed"
USER_OPTION = Option(
    name="--user", short="-u", value="USER", help="as this user of the machine, by default root"
)
SETENV_OPTION = Option(
    name="--setenv",
    short="-E",
    value="NAME[=VALUE]",
    many=True,
    help="set a variable; without a value, as it is here",
)
OPTIONS = (
    USER_OPTION,
    SETENV_OPTION,
    Option(name="--chdir", value="DIR", help="the working directory inside, by default /"),
    Option(name="--pty", short="-t", help="give the command a terminal, whatever ours is"),
    Option(name="--pipe", short="-P", help="give the command our own standard streams"),
)
COMMAND = 1


def run(arguments: Arguments) -> int:
    """Execute the command and return its exit status."""
    if len(arguments.words) < 2:
        raise UsageError(
            "'exec' needs the name of a machine and a command", "For a shell: pymachine shell NAME"
        )
    if arguments.flag("pty") and arguments.flag("pipe"):
        raise UsageError("--pty and --pipe exclude each other")
    name, *argv = arguments.words
    command = Command(
        argv=tuple(argv),
        environment=parse_environment(arguments.texts("setenv")),
        user=arguments.text("user", "root"),
        working_directory=arguments.text("chdir", "/"),
    )
    on_terminal = arguments.flag("pty") or (
        not arguments.flag("pipe") and os.isatty(0) and os.isatty(1)
    )
    return enter(require_running(name), command, on_terminal=on_terminal)


def parse_environment(settings: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the variables that --setenv= names.

    Raises:
        UsageError: a name is empty.
    """
    found = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name:
            raise UsageError(f"--setenv={setting}: the name is missing")
        if equals or name in os.environ:
            found.append((name, value if equals else os.environ[name]))
    return tuple(found)
