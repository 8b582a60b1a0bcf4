"""`pymachine rename`: another name for a machine or image."""

from __future__ import annotations

from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "rename NAME NEW"
SUMMARY = "Give a machine or image another name"
DETAILS = """\
A machine must not run, and an image must not be in use. Their .nspawn files follow. Where a
machine and an image have one name, it is the machine that is renamed."""
EXAMPLE = "pymachine rename web shop"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Rename it."""
    if len(arguments.words) != 2:
        raise UsageError("'rename' takes a name, and the new one")
    from machinectl_py.images.care import rename
    from machinectl_py.runtime.state import find_running

    find_running(arguments.words[0])  # what a killed supervisor left goes first
    rename(*arguments.words)
    return 0
