"""`pymachine snapshots`: the snapshots of machines."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
    timestamp,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "snapshots [NAME…] [OPTION…]"
SUMMARY = "List the snapshots of machines"
DETAILS = """\
In the order of their making, of these machines or of all. RUNNING are those that were taken while
the machine ran. 'remove NAME@TAG' throws one away."""
EXAMPLE = "pymachine snapshots web"
OPTIONS = (LEGEND_OPTION, *JSON_OPTIONS)
COMMAND = -1
_HEADS = ("MACHINE", "TAG", "CREATED", "RUNNING")


def run(arguments: Arguments) -> int:
    """Print the listing."""
    from machinectl_py.images.machines import require_machine
    from machinectl_py.images.records import all_machines

    machines = tuple(map(require_machine, arguments.words)) or all_machines()
    found = [(machine.name, snapshot) for machine in machines for snapshot in machine.snapshots]
    mode = json_mode(arguments)
    if mode:
        rows = [
            {"machine": name, "tag": one.tag, "created": one.created, "running": one.running}
            for name, one in found
        ]
        print_json(rows, mode)
        return 0
    legend = not arguments.flag("no-legend")
    if found:
        cells: list[tuple[str, ...]] = [
            (name, one.tag, timestamp(one.created), "yes" if one.running else "no")
            for name, one in found
        ]
        print_table(_HEADS, cells, legend=legend)
    if legend:
        sys.stdout.write(f"\n{len(found)} snapshots listed.\n" if found else "No snapshots.\n")
    return 0
