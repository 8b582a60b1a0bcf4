"""`pymachine service`: the D-Bus API, started by the bus when someone asks for it."""

from __future__ import annotations

import os

from machinectl_py.config.option import Option
from machinectl_py.errors import DeniedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "service [OPTION…]"
SUMMARY = "Serve the D-Bus API org.pymachine1"
DETAILS = """\
The bus starts it by the unit pymachine.service when a program asks for the name, and it ends when
there has been no call and no machine for a while. Listing is free to all; what changes something is
root's, or whom polkit lets by the action org.pymachine1.manage-machines. To try it:

  busctl call org.pymachine1 /org/pymachine1 org.pymachine1.Manager ListMachines"""
EXAMPLE = "pymachine service --exit-idle-time=300"
OPTIONS = (
    Option(
        name="--exit-idle-time",
        value="SECONDS",
        help="end after so long without a call and a machine, by default 30",
    ),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Serve to the end."""
    if arguments.words:
        raise UsageError("'service' takes no arguments")
    if os.geteuid():
        raise DeniedError("Only root may serve the API", "The bus starts it when it is needed.")
    from machinectl_py.service.server import serve

    serve(arguments.number("exit-idle-time", 30))
    return 0
