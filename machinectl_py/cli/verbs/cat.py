"""`pymachine cat`: the .nspawn files of machines."""

from __future__ import annotations

import sys

from machinectl_py.errors import UsageError
from machinectl_py.runtime.settings_text import texts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "cat NAME…"
SUMMARY = "Print the settings files of machines and images"
DETAILS = "Those that count, in the order in which they do, with their paths as comments."
EXAMPLE = "pymachine cat web"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Print them."""
    if not arguments.words:
        raise UsageError("'cat' needs the name of a machine or image")
    between = ""
    for name in arguments.words:
        for path, text in texts_of(name):
            end = "" if text.endswith("\n") or not text else "\n"
            sys.stdout.write(f"{between}# {path}\n{text}{end}")
            between = "\n"
    return 0
