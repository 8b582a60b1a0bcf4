"""`pymachine login`: the login prompt of a machine."""

from __future__ import annotations

from machinectl_py.cli.verbs.console import tell
from machinectl_py.errors import EXIT_SIGNAL_BASE, UsageError
from machinectl_py.runtime.session import start_getty, stay
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "login NAME"
SUMMARY = "Log in at a new terminal of a machine"
DETAILS = """\
A getty of the machine's own is started on a new terminal, and asks for user and password; so the
machine's init must be systemd. Press ^] three times within a second to leave; standard input that
is no terminal leaves at its end."""
EXAMPLE = "pymachine login debian"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Log in, and stay until left or the machine ends."""
    if len(arguments.words) != 1:
        raise UsageError("'login' takes the name of a machine")
    state = require_running(arguments.words[0])
    master = start_getty(state)
    tell(f"Connected to machine {state.name}. Press ^] three times within 1s to exit session.")
    outcome = stay(state, master)
    tell(f"\nConnection to machine {state.name} terminated.")
    return EXIT_SIGNAL_BASE + outcome.signal if outcome.reason == "signal" else 0
