"""`pymachine copy-to`: files of the host's into a running machine."""

from __future__ import annotations

import os

from machinectl_py.cli.transfers import print_warnings
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "copy-to NAME PATH [PATH INSIDE] [OPTION…]"
SUMMARY = "Copy files or directories into a running machine"
DETAILS = """\
The second path is that of the copy itself, by default the same as the first; its directory must be
there. Owners are the same numbers inside, also where the machine has a user namespace; modes,
times, links, holes and extended attributes are kept. Links inside lead nowhere but inside."""
EXAMPLE = "pymachine copy-to web site.conf /etc/nginx/site.conf"
FORCE = Option(name="--force", help="replace a file of this name, add to a directory of this name")
OPTIONS = (FORCE,)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Copy."""
    name, source, *more = take_words(arguments, "copy-to")
    from machinectl_py.runtime.copy_files import copy_to

    path = os.path.abspath(source)
    target = more[0] if more else path
    told = copy_to(require_running(name), path, target, force=arguments.flag("force"))
    print_warnings(list(told))
    return 0


def take_words(arguments: Arguments, verb: str) -> list[str]:
    """Return the name of a machine and one or two paths.

    Raises:
        UsageError: there are fewer, or more.
    """
    if not 2 <= len(arguments.words) <= 3:
        raise UsageError(
            f"'{verb}' needs the name of a machine and one or two paths",
            f"'pymachine {verb} --help' shows an example.",
        )
    return arguments.words
