"""`pymachine terminate`: an end at once."""

from __future__ import annotations

from machinectl_py.errors import UsageError
from machinectl_py.runtime import stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "terminate NAME…"
SUMMARY = "End a machine at once"
DETAILS = "Every process of it is killed, with no chance to save anything."
EXAMPLE = "pymachine terminate debian"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """End a machine at once."""
    if not arguments.words:
        raise UsageError("'terminate' needs the name of a machine")
    for name in arguments.words:
        stop.terminate(name)
    return 0
