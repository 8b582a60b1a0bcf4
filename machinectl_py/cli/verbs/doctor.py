"""`pymachine doctor`: what machines and their networks need of this host, and what is missing."""

from __future__ import annotations

import os
import sys

from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json, printable
from machinectl_py.errors import EXIT_FAILURE, DeniedError, UsageError
from machinectl_py.runtime.doctor import checks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "doctor [OPTION…]"
SUMMARY = "Look for what keeps machines or their networks from working here"
DETAILS = """\
It changes nothing. Of each thing that is amiss it tells what to do: also which rule of firewalld,
ufw, Docker or your own stops DHCP, DNS or forwarded packets of a network. The exit status is 1 if
something has failed."""
EXAMPLE = "pymachine doctor"
OPTIONS = JSON_OPTIONS
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Print the checks."""
    if arguments.words:
        raise UsageError("'doctor' takes no arguments")
    if os.geteuid():
        raise DeniedError("Only root can look at all of it", "Try again with sudo.")
    found = list(checks())
    if mode := json_mode(arguments):
        print_json([check.to_data() for check in found], mode)
    else:
        width = max(len(check.check) for check in found)
        for check in found:
            sys.stdout.write(f"{check.result:<8} {check.check:<{width}} {printable(check.text)}\n")
            if check.remedy:
                sys.stdout.write(f"{'':<9}{'':<{width}} → {printable(check.remedy)}\n")
    return EXIT_FAILURE if any(check.result == "failed" for check in found) else 0
