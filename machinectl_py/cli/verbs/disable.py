"""`pymachine disable`: have machines started with the host no more."""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime.units import run_systemctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "disable NAME… [OPTION…]"
SUMMARY = "Have machines started with the host no more"
DETAILS = """\
One that runs goes on, unless --now is given."""
EXAMPLE = "pymachine disable --now web"
OPTIONS = (Option(name="--now", help="stop them now, too"),)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Leave it to systemctl(1)."""
    if not arguments.words:
        raise UsageError("'disable' needs the name of a machine")
    run_systemctl("disable", arguments.words, now=arguments.flag("now"))
