"""`pymachine bind`: a directory or file of the host's in a running machine."""

from __future__ import annotations

import os

from machinectl_py.cli.verbs.copy_to import take_words
from machinectl_py.config.option import Option
from machinectl_py.runtime.bind import bind
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "bind NAME PATH [PATH INSIDE] [OPTION…]"
SUMMARY = "Show a directory or file of the host's in a running machine"
DETAILS = """\
The second path is where it is seen, by default the same. It stays until the machine ends; what is
to be there at each start is --bind= of 'boot', or Bind= in the machine's .nspawn file. Where the
machine has a user namespace, owners are mapped, for which the file system has to be capable."""
EXAMPLE = "pymachine bind web /srv/www --read-only --mkdir"
OPTIONS = (
    Option(name="--mkdir", help="make the place inside where it is missing"),
    Option(name="--read-only", help="to be read, not written"),
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Mount it."""
    name, path, *more = take_words(arguments, "bind")
    source = os.path.abspath(path)
    bind(
        require_running(name),
        source,
        more[0] if more else source,
        read_only=arguments.flag("read-only"),
        make=arguments.flag("mkdir"),
    )
    return 0
