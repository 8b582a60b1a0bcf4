"""`pymachine console`: the console of a machine, as its init and its boot write to it."""

from __future__ import annotations

import os

from machinectl_py.errors import EXIT_SIGNAL_BASE, UsageError
from machinectl_py.runtime.control_client import open_console
from machinectl_py.runtime.forward import forward
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "console NAME"
SUMMARY = "Attach to the console of a machine"
DETAILS = """\
Shows the last output first. Press ^] three times within a second to detach; the machine goes on.
Where standard input is no terminal it is typed in, and its end is not the end of watching."""
EXAMPLE = "pymachine console debian"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Attach, and stay until detached or the machine ends."""
    if len(arguments.words) != 1:
        raise UsageError("'console' takes the name of a machine")
    return attach(require_running(arguments.words[0]).name)


def attach(name: str) -> int:
    """Stay on a machine's console until detached or the machine ends; return the exit status."""
    console = open_console(name)
    tell(f"Connected to the console of machine {name}. Press ^] three times within 1s to detach.")
    outcome = forward(
        console.master,
        source=console.output,
        escape=True,
        at_end="stay",
        first_output=console.last_output,
    )
    if outcome.reason == "signal":
        return EXIT_SIGNAL_BASE + outcome.signal
    detached = outcome.reason == "detached"
    tell(f"\nDetached from machine {name}." if detached else f"\nMachine {name} ended the console.")
    return 0


def tell(line: str) -> None:
    """Print a line about the connection; on standard error, as it is not the machine's output."""
    os.write(2, f"{line}\n".encode())
