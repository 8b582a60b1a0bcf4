"""`pymachine backup`: add a backup of a machine to a directory."""

from __future__ import annotations

import os
import sys

from machinectl_py.cli.transfers import QUIET, print_warnings, shown
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "backup NAME DIRECTORY [OPTION…]"
SUMMARY = "Add a backup of a machine or image to a directory"
DETAILS = """
DIRECTORY is a repository of borg(1), made if it is missing; what it has already, of whatever
machine, is not stored again. With BORG_PASSPHRASE in the environment it is encrypted.

Of a machine that runs, a snapshot is taken first, during which it stands still. The machine's
.nspawn files are part of the backup. Prints the backup's version, which 'pymachine restore' takes.
"""
EXAMPLE = "pymachine backup web /srv/backups --keep=14"
COMMAND = -1
OPTIONS = (
    Option(name="--keep", value="N", help="then remove all but the last N backups of it"),
    QUIET,
)


def run(arguments: Arguments) -> int:
    """Run the verb; print the version."""
    if len(arguments.words) != 2:
        raise UsageError("backup needs a NAME and a DIRECTORY", f"Usage: pymachine {USAGE}")
    name, directory = arguments.words
    count = arguments.number("keep", 0)
    if arguments.given("keep") and not count:
        raise UsageError("--keep=0 would keep none of the backups")
    from machinectl_py.images.backup.backup import back_up
    from machinectl_py.images.transfer.flow import size_text
    from machinectl_py.runtime.freeze import Frozen
    from machinectl_py.runtime.state import find_running, require_running

    frozen = Frozen(require_running(name)) if find_running(name) else None
    warnings = list[str]()
    with shown(arguments, f"Backing up {name}") as progress:
        backup, statistics = back_up(
            name, directory, progress, keep=count, frozen=frozen, warn=warnings.append
        )
    sys.stdout.write(f"{backup.version}\n")
    print_warnings(warnings)
    if not arguments.flag("quiet"):
        original, added = size_text(statistics.original), size_text(statistics.added)
        os.write(2, f"{original} backed up, of which {added} were new.\n".encode())
    return 0
