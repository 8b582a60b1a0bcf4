"""`pymachine remove`: machines and images, for good."""

from __future__ import annotations

from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "remove NAME[@TAG]…"
SUMMARY = "Remove machines with their snapshots, images, or one snapshot"
DETAILS = """\
A machine goes with its snapshots; the image that it was made of stays. An image goes if no
machine stands on it. NAME@TAG is one snapshot of a machine. Where a machine and an image have one
name, it is the machine that goes."""
EXAMPLE = "pymachine remove web"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Remove each."""
    if not arguments.words:
        raise UsageError("'remove' needs the name of a machine or image")
    from machinectl_py.images.care import remove_named
    from machinectl_py.runtime.state import find_running

    for name in arguments.words:
        find_running(name.partition("@")[0])
        remove_named(name)
    return 0
