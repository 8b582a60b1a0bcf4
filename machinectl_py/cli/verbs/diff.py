"""`pymachine diff`: what a machine has changed."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json, printable
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "diff NAME [TAG] [OPTION…]"
SUMMARY = "Show what a machine has changed since its image or a snapshot"
DETAILS = """\
A line for each path: + it was added, - removed, ~ changed in type, owner, mode or content. What
is below a directory that was added or removed is not listed."""
EXAMPLE = "pymachine diff web before-upgrade"
OPTIONS = (*JSON_OPTIONS,)
COMMAND = -1
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def run(arguments: Arguments) -> int:
    """Print the differences."""
    if not 1 <= len(arguments.words) <= 2:
        raise UsageError("'diff' takes the name of a machine and, perhaps, a snapshot's tag")
    from machinectl_py.images.diff import differences, written_since
    from machinectl_py.images.machine_view import open_layers, open_machine
    from machinectl_py.images.machines import require_machine

    machine = require_machine(arguments.words[0])
    layers = machine.snapshot(arguments.words[1]).layers if arguments.words[1:] else machine.origin
    mode = json_mode(arguments)
    with open_layers(machine, layers) as old, open_machine(machine) as new:
        found = differences(old, new, written_since(machine, layers))
        if mode:
            print_json([one.to_data() for one in found], mode)
            return 0
        for one in found:
            sys.stdout.write(f"{_SIGNS[one.kind]} {printable(one.path)}\n")
    return 0
