"""`pymachine reboot`: an orderly restart."""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime import stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "reboot NAME… [--timeout=SECONDS]"
SUMMARY = "Restart a machine in its init's orderly way"
DETAILS = "It returns when the machine is ready again."
EXAMPLE = "pymachine reboot debian"
OPTIONS: tuple[Option, ...] = (
    Option(name="--timeout", value="SECONDS", help="to wait, by default 90; 0: for ever"),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Restart a machine in its init's orderly way."""
    if not arguments.words:
        raise UsageError("'reboot' needs the name of a machine")
    for name in arguments.words:
        stop.reboot(name, arguments.number("timeout", 90))
    return 0
