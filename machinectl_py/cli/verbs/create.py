"""`pymachine create`: a machine of an image."""

from __future__ import annotations

import sys

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "create IMAGE NAME [OPTION…]"
SUMMARY = "Make a machine of an image"
DETAILS = """\
In an instant, whatever the image's size: the machine shares all that it does not change. From
then on the image does not change either. IMAGE may also be a machine that does not run, or
NAME@TAG, a snapshot of it: the new one begins as that is now, or was then.

The same is done by 'boot IMAGE -M NAME', where there is no machine of that name."""
EXAMPLE = "pymachine create debian web"
OPTIONS = (Option(name="--quiet", short="-q", help="say nothing of success"),)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Make it."""
    if len(arguments.words) != 2:
        raise UsageError("'create' takes the name of an image, and that of the new machine")
    from machinectl_py.images.machines import create
    from machinectl_py.runtime.state import find_running

    image, name = arguments.words
    find_running(image)  # what a killed supervisor left goes first
    machine = create(image, name)
    if not arguments.flag("quiet"):
        sys.stderr.write(f"Made of '{image}' ({machine.driver}). Start it: pymachine boot {name}\n")
    return 0
