"""`pymachine list`: the machines that run, in the columns of `machinectl list`."""

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
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.layout import CLASS
from machinectl_py.runtime.inspect_network import machine_addresses
from machinectl_py.runtime.inspect_os import os_release
from machinectl_py.runtime.state import running_machines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.state import MachineState

USAGE = "list [OPTION…]"
SUMMARY = "List the machines that run"
DETAILS = "ADDRESSES are those of the machine's own network; a dash if it shares the host's."
EXAMPLE = "pymachine list --json=pretty"
OPTIONS = (
    Option(
        name="--max-addresses",
        value="N",
        help="print at most N addresses of each machine, or all; by default 1",
    ),
    Option(name="--full", short="-l", help="do not cut lines at the terminal's width"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_COLUMNS = ("machine", "class", "service", "os", "version", "addresses")


def run(arguments: Arguments) -> int:
    """Print the listing."""
    if arguments.words:
        raise UsageError("'list' takes no arguments")
    limit = _address_limit(arguments)
    rows = [_row(state, limit) for state in running_machines()]
    mode = json_mode(arguments)
    if mode:
        print_json([dict(zip(_COLUMNS, row, strict=True)) for row in rows], mode)
        return 0
    legend = not arguments.flag("no-legend")
    if rows:
        heads = tuple(column.upper() for column in _COLUMNS)
        width = 0 if arguments.flag("full") else terminal_width()
        print_table(heads, rows, legend=legend, width=width)
    if legend:
        sys.stdout.write(f"\n{len(rows)} machines listed.\n" if rows else "No machines.\n")
    return 0


def _address_limit(arguments: Arguments) -> int | None:
    if arguments.text("max-addresses") == "all":
        return None
    return arguments.number("max-addresses", 1)


def _row(state: MachineState, limit: int | None) -> tuple[str, ...]:
    release = os_release(state)
    system, version = release.get("ID", ""), release.get("VERSION_ID", "")
    addresses = machine_addresses(state) if limit != 0 else ()
    shown = "\n".join(addresses[:limit])
    if len(addresses) > len(addresses[:limit]):
        shown += "…"
    return state.name, CLASS, state.service, system, version, shown
