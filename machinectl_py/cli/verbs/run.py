"""`pymachine run`: a command as the payload of a machine, in the foreground."""

from __future__ import annotations

import os

from machinectl_py.cli.machine_options import (
    SETTINGS_OPTION,
    files_mode,
    selection,
    setting_options,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, StepError, UsageError
from machinectl_py.log import hush
from machinectl_py.runtime.foreground import run_foreground
from machinectl_py.runtime.prepare import Way, make_machine
from machinectl_py.runtime.settings import read_values
from machinectl_py.runtime.target import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.spec import ConsoleMode, PayloadKind

USAGE = "run NAME|-D DIR|-i PATH [OPTION…] [--] COMMAND [ARGUMENT…]"
SUMMARY = "Run a command in a machine of its own"
DETAILS = """\
The machine is made as by 'boot', with the command as its PID 1 in the place of an init. The exit
status is the command's, 128+n for signal n, 127 if there is no such command."""
EXAMPLE = "pymachine run debian -- cat /etc/os-release"
OPTIONS = (
    Option(
        name="--quiet", short="-q", help="say nothing but errors: all else is the command's output"
    ),
    Option(name="--pty", short="-t", help="give the command a terminal, whatever ours is"),
    *setting_options("boot"),
    SETTINGS_OPTION,
)
COMMAND = 1


def run(arguments: Arguments) -> int:
    """Run the command and return its exit status."""
    if arguments.flag("quiet"):
        hush()
    if arguments.flag("pty") and (arguments.given("pipe") or arguments.given("console")):
        raise UsageError("--pty excludes --pipe and --console=")
    selected = selection(arguments)
    target = resolve(selected)
    values = read_values(selected, target, files_mode(arguments))
    command = values.get("parameters", ())
    if not command:
        raise UsageError("'run' needs a command", "To boot the machine: pymachine boot")
    mode = "interactive" if arguments.flag("pty") else values.get("console", "autopipe")
    kind: PayloadKind = "as-pid2" if values.flag("as_pid2") else "command"
    way = Way(kind=kind, argv=command, console=_console(mode), foreground=True)
    spec, facts = make_machine(target, values, way)
    try:
        return run_foreground(spec, facts)
    except StepError as error:
        if error.step != "execute-payload":
            raise
        error.exit_status = EXIT_NOT_FOUND if error.errno == 2 else EXIT_CANNOT_EXECUTE
        raise


def _console(mode: str) -> ConsoleMode:
    """Return the console of a mode: "autopipe" is a terminal if both ends of ours are one."""
    if mode == "autopipe":
        return "interactive" if os.isatty(0) and os.isatty(1) else "pipe"
    return mode  # type: ignore[return-value]  # the table has no other
