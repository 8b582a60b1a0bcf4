"""`pymachine kill`: a signal to a machine's processes."""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.config.values import signal
from machinectl_py.errors import UsageError
from machinectl_py.runtime import stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "kill NAME… [--signal=SIGNAL] [--whom=leader|all]"
SUMMARY = "Send a signal to the processes of a machine"
DETAILS = ""
EXAMPLE = "pymachine kill --whom=leader --signal=SIGRTMIN+5 debian"
OPTIONS = (
    Option(name="--signal", short="-s", value="SIGNAL", help="by default SIGTERM"),
    Option(name="--whom", value="WHOM", choices=("leader", "all"), help="leader or all (default)"),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Send the signal."""
    if not arguments.words:
        raise UsageError("'kill' needs the name of a machine")
    text = arguments.text("signal", "SIGTERM")
    try:
        number = signal(text)
    except ValueError as error:
        raise UsageError(f"--signal={text}: expected {error}") from error
    for name in arguments.words:
        stop.kill(name, number, arguments.text("whom", "all"))
    return 0
