"""`pymachine backups`: what a directory of backups has."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
)
from machinectl_py.cli.transfers import QUIET, shown, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "backups DIRECTORY [NAME] [OPTION…]"
SUMMARY = "List the backups in a directory"
DETAILS = "Those of the machine NAME, or all. 'pymachine restore' makes an image of one."
EXAMPLE = "pymachine backups /srv/backups web"
COMMAND = -1
OPTIONS = (QUIET, LEGEND_OPTION, *JSON_OPTIONS)
_COLUMNS = ("name", "version", "kind")


def run(arguments: Arguments) -> int:
    """Print the listing."""
    directory, name = two_words(arguments, "backups", "a DIRECTORY", USAGE)
    from machinectl_py.images.backup.backup import list_backups

    with shown(arguments, f"Reading {directory}") as progress:
        found = [backup.to_data() for backup in list_backups(directory, name, progress)]
    mode = json_mode(arguments)
    if mode:
        print_json(found, mode)
        return 0
    legend = not arguments.flag("no-legend")
    if found:
        rows = [tuple(backup[column] for column in _COLUMNS) for backup in found]
        print_table(tuple(column.upper() for column in _COLUMNS), rows, legend=legend)
    if legend:
        sys.stdout.write(f"\n{len(found)} backups listed.\n" if found else "No backups.\n")
    return 0
