"""`pymachine thaw`: have frozen machines go on."""

from __future__ import annotations

from machinectl_py.errors import UsageError
from machinectl_py.runtime.freeze import thaw_machine
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "thaw NAME…"
SUMMARY = "Have frozen machines go on"
DETAILS = ""
EXAMPLE = "pymachine thaw web"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Thaw each."""
    if not arguments.words:
        raise UsageError("'thaw' needs the name of a machine")
    for name in arguments.words:
        thaw_machine(require_running(name))
    return 0
