"""`pymachine reset`: a machine as it was made."""

from __future__ import annotations

from machinectl_py.cli.render import one_name
from machinectl_py.config.option import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "reset NAME [OPTION…]"
SUMMARY = "Put a machine back to its image"
DETAILS = """\
In an instant. The machine must not run; what it has changed since it was made is thrown away,
unless --keep=TAG takes a snapshot of it first. Its snapshots stay."""
EXAMPLE = "pymachine reset web --keep=before-reset"
OPTIONS = (Option(name="--keep", value="TAG", help="take a snapshot of what it is now first"),)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Put it back."""
    name = one_name(arguments, "reset")
    from machinectl_py.images.snapshots import reset
    from machinectl_py.runtime.state import find_running

    find_running(name)
    reset(name, keep=arguments.text("keep"))
    return 0
