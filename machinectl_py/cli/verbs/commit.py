"""`pymachine commit`: an image of what a machine is."""

from __future__ import annotations

import sys

from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "commit NAME IMAGE"
SUMMARY = "Make an image of what a machine is now"
DETAILS = """\
IMAGE is a directory or disk image of its own in /var/lib/machines, which needs neither the
machine nor its image. The machine must not run, and stays as it is. On btrfs, and of disk images
where extents can be shared, it takes an instant; elsewhere a copy."""
EXAMPLE = "pymachine commit web web-golden"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Make it; print its path."""
    if len(arguments.words) != 2:
        raise UsageError("'commit' takes the name of a machine, and that of the new image")
    from machinectl_py.images.commit import commit
    from machinectl_py.runtime.state import find_running

    find_running(arguments.words[0])
    sys.stdout.write(f"{commit(*arguments.words)}\n")
    return 0
