"""`pymachine rollback`: a machine as it was."""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "rollback NAME TAG [OPTION…]"
SUMMARY = "Put a machine back to a snapshot"
DETAILS = """\
In an instant. The machine must not run; what it was since is thrown away, unless --keep=TAG takes
a snapshot of it first. The snapshots stay, later ones too."""
EXAMPLE = "pymachine rollback web before-upgrade"
OPTIONS = (Option(name="--keep", value="TAG", help="take a snapshot of what it is now first"),)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Put it back."""
    if len(arguments.words) != 2:
        raise UsageError(
            "'rollback' takes the name of a machine, and the tag of a snapshot",
            "'pymachine snapshots' lists them.",
        )
    from machinectl_py.images.snapshots import roll_back
    from machinectl_py.runtime.state import find_running

    name, tag = arguments.words
    find_running(name)
    roll_back(name, tag, keep=arguments.text("keep"))
    return 0
