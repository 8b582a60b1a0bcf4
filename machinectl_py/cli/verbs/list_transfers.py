"""`pymachine list-transfers`: images on their way in or out."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
    printable,
    terminal_width,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.images.transfer.registry import Transfer

USAGE = "list-transfers [OPTION…]"
SUMMARY = "List pulls, imports, exports and backups that are under way"
DETAILS = """\
PERCENT is of what the transfer does at the moment, which PHASE tells: an image is downloaded,
verified, unpacked and written. Each is a process, and its ID that of the process;
'cancel-transfer ID' ends one."""
EXAMPLE = "pymachine list-transfers"
OPTIONS = (
    Option(name="--full", short="-l", help="do not cut lines at the terminal's width"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_HEADS = ("ID", "PERCENT", "TYPE", "LOCAL", "REMOTE", "PHASE")


def run(arguments: Arguments) -> int:
    """Print the listing."""
    if arguments.words:
        raise UsageError("'list-transfers' takes no arguments")
    from machinectl_py.images.transfer.registry import transfers

    found = transfers()
    mode = json_mode(arguments)
    if mode:
        print_json([_data(transfer) for transfer in found], mode)
        return 0
    legend = not arguments.flag("no-legend")
    if found:
        width = 0 if arguments.flag("full") else terminal_width()
        print_table(_HEADS, [_row(transfer) for transfer in found], legend=legend, width=width)
    if legend:
        sys.stdout.write(f"\n{len(found)} transfers listed.\n" if found else "No transfers.\n")
    return 0


def _data(transfer: Transfer) -> dict[str, object]:
    """Return a transfer as JSON has it: importctl's keys, then ours."""
    return {
        "id": transfer.pid,
        "progress": transfer.percent / 100 if transfer.percent >= 0 else None,
        "type": transfer.kind,
        "class": "machine",
        "local": transfer.local,
        "remote": transfer.remote,
        "phase": transfer.phase,
    }


def _row(transfer: Transfer) -> tuple[str, ...]:
    return (
        f"{transfer.pid}",
        f"{transfer.percent}%" if transfer.percent >= 0 else "",
        transfer.kind,
        transfer.local,
        printable(transfer.remote),
        transfer.phase,
    )
