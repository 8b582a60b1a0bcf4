"""`pymachine run`: a command as the payload of a machine, in the foreground."""

from __future__ import annotations

import os

from machinectl_py.cli.machine_options import MACHINE_OPTIONS, make_machine, resolve_root
from machinectl_py.config.option import Option
from machinectl_py.config.spec import Payload
from machinectl_py.errors import EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, StepError, UsageError
from machinectl_py.runtime.foreground import run_foreground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "run NAME|-D DIR [OPTION…] [--] COMMAND [ARGUMENT…]"
SUMMARY = "Run a command in a machine of its own"
DETAILS = """\
The machine is made as by 'boot', with the command as its PID 1 in the place of an init. The exit
status is the command's, 128+n for signal n, 127 if there is no such command."""
EXAMPLE = "pymachine run debian -- cat /etc/os-release"
OPTIONS = (
    Option(name="--as-pid2", short="-a", help="a stub init as PID 1, the command as PID 2"),
    Option(name="--chdir", value="DIR", help="the working directory inside"),
    Option(name="--pty", short="-t", help="give the command a terminal, whatever ours is"),
    Option(name="--pipe", short="-P", help="give the command our own standard streams"),
    *MACHINE_OPTIONS,
)
COMMAND = 1


def run(arguments: Arguments) -> int:
    """Run the command and return its exit status."""
    if arguments.flag("pty") and arguments.flag("pipe"):
        raise UsageError("--pty and --pipe exclude each other")
    name, root, command = resolve_root(arguments)
    if not command:
        raise UsageError("'run' needs a command", "To boot the machine: pymachine boot")
    terminal = arguments.flag("pty") or (
        not arguments.flag("pipe") and os.isatty(0) and os.isatty(1)
    )
    spec, facts = make_machine(
        arguments,
        name=name,
        root=root,
        payload=Payload(
            kind="as-pid2" if arguments.flag("as-pid2") else "command", argv=tuple(command)
        ),
        console="interactive" if terminal else "pipe",
        foreground=True,
    )
    try:
        return run_foreground(spec, facts)
    except StepError as error:
        if error.step != "execute-payload":
            raise
        error.exit_status = EXIT_NOT_FOUND if error.errno == 2 else EXIT_CANNOT_EXECUTE
        raise
