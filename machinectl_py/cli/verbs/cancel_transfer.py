"""`pymachine cancel-transfer`: ends pulls, imports and exports."""

from __future__ import annotations

from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "cancel-transfer ID…"
SUMMARY = "End pulls, imports, exports or backups that are under way"
DETAILS = """\
What was made goes; what was downloaded stays a week, for the next try to go on with. Returns when
all of that is done."""
EXAMPLE = "pymachine cancel-transfer 3"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """End each."""
    if not arguments.words:
        raise UsageError("'cancel-transfer' needs the ID of a transfer")
    for word in arguments.words:
        if not (word.isascii() and word.isdigit()):
            raise UsageError(f"'{word}' is no ID of a transfer", "IDs are whole numbers.")
    from machinectl_py.images.transfer.registry import cancel

    for word in arguments.words:
        cancel(int(word))
    return 0
