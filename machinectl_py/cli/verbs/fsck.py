"""`pymachine fsck`: what a crash left in the store."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json, printable
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "fsck [OPTION…]"
SUMMARY = "Find and mend what a crash left among machines and images"
DETAILS = """\
A line for each thing that is found. What was being made or removed when a process was killed
goes; nothing that a machine stands on does. The exit status is 1 if something is found that
cannot be mended, or with --check anything at all."""
EXAMPLE = "pymachine fsck"
OPTIONS = (
    Option(name="--check", help="only tell of what is found"),
    *JSON_OPTIONS,
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Check the store."""
    if arguments.words:
        raise UsageError("'fsck' takes no arguments")
    from machinectl_py.images.fsck import check_store
    from machinectl_py.runtime.state import running_machines

    check = arguments.flag("check")
    if not check:
        running_machines()  # removes what killed supervisors left
    found = check_store(mend=not check)
    mode = json_mode(arguments)
    if mode:
        print_json([finding.to_data() for finding in found], mode)
    else:
        for finding in found:
            end = ("can be mended" if check else "mended") if finding.mended else "NOT MENDED"
            sys.stdout.write(f"{printable(finding.path)}: {finding.what}: {end}\n")
        if not found:
            sys.stderr.write("The store is whole.\n")
    return int(any(check or not finding.mended for finding in found))
