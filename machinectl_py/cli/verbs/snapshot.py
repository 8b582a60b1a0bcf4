"""`pymachine snapshot`: what a machine is now, to go back to."""

from __future__ import annotations

import sys

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "snapshot NAME [TAG] [OPTION…]"
SUMMARY = "Take a snapshot of a machine"
DETAILS = """\
In an instant, whatever the machine's size. Without TAG, which 'rollback' and 'diff' are told, it
is the time. A machine that runs is refused, unless --running says that it may be frozen for the
moment: what it has written where its root is an overlay is copied then, which takes the longer
the more it is.

--keep=N throws away all but the last N snapshots that have no TAG of yours;
pymachine-snapshot@.timer does so each day."""
EXAMPLE = "pymachine snapshot web before-upgrade"
OPTIONS = (
    Option(name="--running", help="if the machine runs, freeze it for the moment"),
    Option(name="--keep", value="N", help="keep the last N snapshots without a tag of yours"),
    Option(name="--quiet", short="-q", help="do not print the tag"),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Take it; print its tag."""
    if not 1 <= len(arguments.words) <= 2:
        raise UsageError("'snapshot' takes the name of a machine and, perhaps, a tag")
    from machinectl_py.images import snapshots
    from machinectl_py.runtime.state import find_running, require_running

    name, tag = arguments.words[0], "".join(arguments.words[1:])
    count = arguments.number("keep", 0)
    if arguments.given("keep") and not count:
        raise UsageError("--keep=0 would keep none of the snapshots")
    if arguments.flag("running") and find_running(name):
        from machinectl_py.runtime.freeze import Frozen

        taken = snapshots.take_running(name, tag, Frozen(require_running(name)))
    else:
        find_running(name)  # what a killed supervisor left goes first
        taken = snapshots.take(name, tag)
    if count:
        snapshots.keep_last(name, count)
    if not arguments.flag("quiet"):
        sys.stdout.write(f"{taken.tag}\n")
    return 0
