"""`pymachine show`: properties, one a line, as programs like to read them."""

from __future__ import annotations

import sys

from machinectl_py import __version__
from machinectl_py.cli.parse import closest
from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json, printable, timestamp
from machinectl_py.config.option import Option
from machinectl_py.errors import NotFoundError, UsageError
from machinectl_py.layout import RUN_DIR
from machinectl_py.runtime.properties import PROPERTIES, read_properties
from machinectl_py.runtime.state import require_running, running_machines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.properties import Value
    from machinectl_py.runtime.state import MachineState

USAGE = "show [NAME…] [OPTION…]"
SUMMARY = "Show the properties of machines, or of pymachine itself"
DETAILS = """\
Those of machinectl come first, under its names; ours follow. Empty ones are left out unless
--all or -p asks for them. With --json times are numbers, in microseconds."""
EXAMPLE = "pymachine show debian -p Leader --value"
OPTIONS = (
    Option(
        name="--property",
        short="-p",
        value="NAME",
        many=True,
        help="only this property; may be repeated, or list several with commas",
    ),
    Option(name="--P", short="-P", value="NAME", many=True, help="like -p NAME --value"),
    Option(name="--value", help="print values without names"),
    Option(name="--all", short="-a", help="print empty properties too"),
    Option(name="--settings", help="print its settings instead, as a .nspawn file has them"),
    *JSON_OPTIONS,
)
COMMAND = -1
_TIMES = ("Timestamp",)  # of CLOCK_REALTIME


def run(arguments: Arguments) -> int:
    """Print the properties of each machine."""
    if arguments.flag("settings"):
        return _show_settings(arguments)
    words = arguments.texts("property") + arguments.texts("P")
    names = tuple(name for word in words for name in word.split(","))
    if arguments.words:
        _require_known(names, tuple(PROPERTIES))
        shown = [read_properties(_running(name), names) for name in arguments.words]
    else:
        shown = [_own_properties(names)]
    mode = json_mode(arguments)
    if mode:
        print_json(shown, mode)
        return 0
    value_only = arguments.flag("value") or arguments.given("P")
    empty = bool(names) or arguments.flag("all")
    for number, properties in enumerate(shown):
        if number and not value_only:
            sys.stdout.write("\n")
        _print(properties, empty=empty, value_only=value_only)
    return 0


def _running(name: str) -> MachineState:
    try:
        return require_running(name)
    except NotFoundError as error:
        error.hint = f"'pymachine show-image {name}' tells of one that does not run."
        raise


def _show_settings(arguments: Arguments) -> int:
    from machinectl_py.cli.settings_view import print_settings
    from machinectl_py.runtime.state import read_spec

    if len(arguments.words) != 1:
        raise UsageError("'show --settings' takes the name of one machine")
    print_settings(read_spec(require_running(arguments.words[0])))
    return 0


def _own_properties(names: tuple[str, ...]) -> dict[str, Value]:
    """Return what `show` without a machine tells."""
    own: dict[str, Value] = {
        "Version": __version__,
        "RuntimeDirectory": RUN_DIR,
        "Machines": tuple(state.name for state in running_machines()),
    }
    _require_known(names, tuple(own))
    return {name: own[name] for name in names or own}


def _require_known(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(
                f"Unknown property '{name}'" + closest(name, known),
                "'pymachine show NAME --all' lists those of a machine.",
            )


def _print(properties: dict[str, Value], *, empty: bool, value_only: bool) -> None:
    for name, value in properties.items():
        text = timestamp(int(str(value))) if name in _TIMES else _text(value)
        if text or empty:
            text = printable(text)
            sys.stdout.write(f"{text}\n" if value_only else f"{name}={text}\n")


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    return str(value)
