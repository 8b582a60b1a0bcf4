"""`pymachine restore`: make an image of a backup."""

from __future__ import annotations

from machinectl_py.cli.transfers import MAKE, placing_of, shown, tell_made
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "restore NAME DIRECTORY [NEW] [OPTION…]"
SUMMARY = "Make an image of a backup of a machine"
DETAILS = """
Makes the image NEW, or NAME, of the last backup in DIRECTORY, with the .nspawn files that it has;
those that are there already stay. An image that is there is replaced with --force only, and when
the new one is complete.
"""
EXAMPLE = "pymachine restore web /srv/backups web-before"
COMMAND = -1
OPTIONS = (
    Option(name="--version", value="VERSION", help="of this backup, as 'pymachine backups' has it"),
    *MAKE,
)


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's path."""
    if not 2 <= len(arguments.words) <= 3:
        raise UsageError("restore needs a NAME and a DIRECTORY", f"Usage: pymachine {USAGE}")
    name, directory, new = (*arguments.words, "")[:3]
    from machinectl_py.images.backup.backup import restore

    warnings = list[str]()
    with shown(arguments, f"Restoring {name}") as progress:
        made = restore(
            name,
            directory,
            new,
            progress,
            version=arguments.text("version"),
            warn=warnings.append,
            placing=placing_of(arguments),
        )
    tell_made(arguments, made, warnings)
    return 0
