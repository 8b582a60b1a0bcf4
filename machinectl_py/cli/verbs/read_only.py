"""`pymachine read-only`: machines and images that do not change."""

from __future__ import annotations

from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "read-only NAME [yes|no]"
SUMMARY = "Mark a machine or image read-only, or writable again"
DETAILS = """\
A machine that is read-only is started as with --read-only. An image gets the mark of machinectl:
to boot it by its name makes a machine of it then. An image that machines stand on is read-only in
any case, and with this stays so when they are gone."""
EXAMPLE = "pymachine read-only golden"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1
_YES, _NO = ("yes", "y", "true", "t", "on", "1"), ("no", "n", "false", "f", "off", "0")


def run(arguments: Arguments) -> int:
    """Mark it."""
    if not 1 <= len(arguments.words) <= 2:
        raise UsageError("'read-only' takes a name and, perhaps, yes or no")
    answer = (arguments.words[1:] or ["yes"])[0]
    if answer not in _YES + _NO:
        raise UsageError(f"'{answer}' is neither yes nor no")
    from machinectl_py.images.care import set_read_only
    from machinectl_py.runtime.state import find_running

    find_running(arguments.words[0])
    set_read_only(arguments.words[0], answer in _YES)
    return 0
