"""`pymachine edit`: the .nspawn file of a machine, in the user's editor."""

from __future__ import annotations

import os

from machinectl_py.errors import UsageError
from machinectl_py.runtime.settings_text import edit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "edit NAME…"
SUMMARY = "Edit the settings files of machines and images"
DETAILS = """\
/etc/systemd/nspawn/NAME.nspawn, in $SYSTEMD_EDITOR, $EDITOR or $VISUAL. What is not valid is
refused with its line, and kept as a draft. It counts from the machine's next start on."""
EXAMPLE = "pymachine edit web"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Edit each."""
    if not arguments.words:
        raise UsageError("'edit' needs the name of a machine or image")
    for name in arguments.words:
        path = edit(name)
        os.write(2, f"{path or 'Nothing'} {'written' if path else 'changed'}.\n".encode())
    return 0
