"""`pymachine enable`: have machines started when the host starts."""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime.units import run_systemctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "enable NAME… [OPTION…]"
SUMMARY = "Have machines started when the host starts"
DETAILS = """\
By the unit pymachine@NAME.service, which 'systemctl edit' gives limits, dependencies and so on."""
EXAMPLE = "pymachine enable --now web"
OPTIONS = (Option(name="--now", help="start them now, too"),)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Leave it to systemctl(1)."""
    if not arguments.words:
        raise UsageError("'enable' needs the name of a machine")
    run_systemctl("enable", arguments.words, now=arguments.flag("now"))
