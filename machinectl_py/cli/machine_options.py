"""What `boot`, `run`, `plan` and `nspawn` share: their options, and what these select."""

from __future__ import annotations

from machinectl_py.config.merge import from_options
from machinectl_py.config.option import Option
from machinectl_py.config.table import SETTINGS, Setting
from machinectl_py.config.values import boolean
from machinectl_py.errors import UsageError
from machinectl_py.runtime.target import Selection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.merge import FilesMode

SETTINGS_OPTION = Option(
    name="--settings",
    value="MODE",
    help="how far a settings file counts: yes, no, override, trusted",
)


def setting_options(*without: str) -> tuple[Setting, ...]:
    """Return the rows of the table that are options, but those of these names without dashes."""
    hidden = {"", *(f"--{name}" for name in without)}
    return tuple(row for row in SETTINGS if row.name not in hidden)


# A machine in the background has no console of ours, and its payload is its init.
BACKGROUND_OPTIONS = (
    *setting_options("boot", "as-pid2", "console", "pipe", "background"),
    SETTINGS_OPTION,
)


def selection(arguments: Arguments) -> Selection:
    """Return what the command line says of the machine that is meant.

    Raises:
        UsageError: a value is not valid.
    """
    return Selection(
        options=from_options(arguments.values, SETTINGS),
        words=tuple(arguments.words),
        name=arguments.text("machine"),
        directory=arguments.text("directory") if arguments.given("directory") else None,
        image=arguments.text("image") if arguments.given("image") else None,
    )


def files_mode(arguments: Arguments) -> FilesMode:
    """Return how far settings files count.

    Raises:
        UsageError: --settings= has no such value.
    """
    text = arguments.text("settings", "yes")
    if text in ("override", "trusted"):
        return text  # type: ignore[return-value]  # mypy does not narrow it
    try:
        return "yes" if boolean(text) else "no"
    except ValueError:
        raise UsageError(f"--settings={text}: expected yes, no, override or trusted") from None
