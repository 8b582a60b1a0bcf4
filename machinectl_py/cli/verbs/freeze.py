"""`pymachine freeze`: have machines stand still."""

from __future__ import annotations

from machinectl_py.errors import UsageError
from machinectl_py.runtime.freeze import freeze_machine
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "freeze NAME…"
SUMMARY = "Have machines stand still"
DETAILS = """\
Their processes get no processor, and keep their memory, until 'thaw'; 'poweroff' and 'reboot' thaw
them first. Nothing of them is lost but the time: connections of others may time out."""
EXAMPLE = "pymachine freeze web"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Freeze each."""
    if not arguments.words:
        raise UsageError("'freeze' needs the name of a machine")
    for name in arguments.words:
        freeze_machine(require_running(name))
    return 0
