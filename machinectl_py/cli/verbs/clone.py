"""`pymachine clone`: a second machine like the first."""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "clone NAME NEW [OPTION…]"
SUMMARY = "Make a second machine like the first"
DETAILS = """\
In an instant, whatever its size, as 'create' does, and of the same image, which 'reset' takes
both back to. The machine must not run. Of an image it makes the first machine."""
EXAMPLE = "pymachine clone web web2"
OPTIONS = (
    Option(name="--read-only", help="have nothing written to its root"),
    Option(name="--quiet", short="-q", help="say nothing of success"),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Make it."""
    if len(arguments.words) != 2:
        raise UsageError("'clone' takes the name of a machine, and that of the new one")
    from machinectl_py.images.machines import clone
    from machinectl_py.runtime.state import find_running

    find_running(arguments.words[0])
    clone(*arguments.words, read_only=arguments.flag("read-only"))
    return 0
