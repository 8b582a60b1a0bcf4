"""`pymachine copy-from`: files of a running machine's to the host."""

from __future__ import annotations

import os

from machinectl_py.cli.transfers import print_warnings
from machinectl_py.cli.verbs.copy_to import FORCE, take_words
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "copy-from NAME PATH [PATH ON THE HOST] [OPTION…]"
SUMMARY = "Copy files or directories out of a running machine"
DETAILS = """\
The second path is that of the copy itself, by default the same as the first; its directory must be
there. Owners are the same numbers as inside; modes, times, links, holes and extended attributes are
kept, so also set-user-ID bits: whose machine it is says what is copied."""
EXAMPLE = "pymachine copy-from web /var/log/nginx ./nginx-logs"
OPTIONS = (FORCE,)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Copy."""
    name, source, *more = take_words(arguments, "copy-from")
    from machinectl_py.runtime.copy_files import copy_from

    target = os.path.abspath(more[0] if more else source)
    told = copy_from(require_running(name), source, target, force=arguments.flag("force"))
    print_warnings(list(told))
    return 0
