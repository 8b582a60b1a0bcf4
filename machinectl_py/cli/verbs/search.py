"""`pymachine search`: what servers have."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
    terminal_width,
)
from machinectl_py.cli.transfers import QUIET, shown
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "search [REMOTE:[WORD]] [OPTION…]"
SUMMARY = "List the images that a server has, or the servers"
DETAILS = """
Lists the images for this machine's architecture whose name or description has WORD in it; without
REMOTE, the servers that are known. 'pymachine pull REMOTE:IMAGE' gets one.
"""
EXAMPLE = "pymachine search images:debian"
COMMAND = -1
OPTIONS = (QUIET, LEGEND_OPTION, *JSON_OPTIONS)


def run(arguments: Arguments) -> int:
    """Print the listing."""
    if len(arguments.words) > 1:
        raise UsageError("search takes one REMOTE:WORD", f"Usage: pymachine {USAGE}")
    from machinectl_py.images import remotes

    if not arguments.words:
        rows = [
            {"name": remote.name, "type": remote.kind, "url": remote.url}
            for remote in remotes.known().values()
        ]
        _print(arguments, rows, ("name", "type", "url"), "remotes")
        return 0
    server, _, word = arguments.words[0].partition(":")
    remote = remotes.find(server)
    from machinectl_py.images.transfer.pulls import search

    with shown(arguments, f"Searching {server}") as progress:
        found = search(remote, word, progress)
    columns = ("image", "version", "description")
    _print(arguments, [offer.to_data() for offer in found], columns, "images")
    return 0


def _print(
    arguments: Arguments, rows: list[dict[str, str]], columns: tuple[str, ...], what: str
) -> None:
    mode = json_mode(arguments)
    if mode:
        print_json(rows, mode)
        return
    legend = not arguments.flag("no-legend")
    if rows:
        heads = tuple(column.upper() for column in columns)
        cells = [tuple(row[column] for column in columns) for row in rows]
        print_table(heads, cells, legend=legend, width=terminal_width())
    if legend:
        sys.stdout.write(f"\n{len(rows)} {what} listed.\n" if rows else f"No {what}.\n")
