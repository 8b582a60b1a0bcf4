"""`pymachine prune`: what nobody will go back to."""

from __future__ import annotations

import sys

from machinectl_py.config.option import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "prune [NAME…] [OPTION…]"
SUMMARY = "Free what no machine and no snapshot needs"
DETAILS = """\
Of these machines or of all: with --keep=N all but the last N snapshots that have no tag of yours
go. Then layers that are only ever used together become one; that takes no room, and machines that
run are passed over."""
EXAMPLE = "pymachine prune web --keep=7"
OPTIONS = (
    Option(name="--keep", value="N", help="keep the last N snapshots without a tag of yours"),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Prune; say what was freed."""
    from machinectl_py.images.join import join_layers
    from machinectl_py.images.machines import require_machine
    from machinectl_py.images.records import machine_names
    from machinectl_py.images.snapshots import keep_last
    from machinectl_py.images.sweep import sweep
    from machinectl_py.runtime.state import running_machines

    running_machines()  # removes what killed supervisors left
    names = tuple(require_machine(name).name for name in arguments.words)
    count = arguments.number("keep", 0)
    if arguments.given("keep"):
        for name in names or machine_names():
            for tag in keep_last(name, count):
                sys.stdout.write(f"{name}@{tag}\n")
    sweep()
    joined = join_layers(names)
    sys.stderr.write(f"Layers that became part of another: {joined}.\n")
    return 0
