"""`pymachine show-image`: the properties of images."""

from __future__ import annotations

import sys

from machinectl_py.cli.parse import closest
from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json, printable, timestamp
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from machinectl_py.cli.parse import Arguments

USAGE = "show-image [NAME…] [OPTION…]"
SUMMARY = "Show the properties of images and machines, or of their place"
DETAILS = """\
Those of machinectl come first, under its names; ours follow. Sizes are in bytes, with --json
times are numbers, in microseconds. Without a name it shows those of the place where they are
kept."""
EXAMPLE = "pymachine show-image debian -p Path --value"
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
    *JSON_OPTIONS,
)
COMMAND = -1
_TIMES = ("CreationTimestamp", "ModificationTimestamp")


def run(arguments: Arguments) -> int:
    """Print the properties of each."""
    words = arguments.texts("property") + arguments.texts("P")
    names = tuple(name for word in words for name in word.split(","))
    if arguments.words:
        from machinectl_py.images.listing import find_image
        from machinectl_py.runtime.image_properties import image_properties

        shown: list[Mapping[str, object]] = [
            image_properties(find_image(name)) for name in arguments.words
        ]
    else:
        from machinectl_py.images.listing import pool_properties

        shown = [pool_properties()]
    for name in names:
        if name not in shown[0]:
            raise UsageError(f"Unknown property '{name}'" + closest(name, tuple(shown[0])))
    shown = [{name: one[name] for name in names or one} for one in shown]
    if mode := json_mode(arguments):
        print_json(shown, mode)
        return 0
    value_only = arguments.flag("value") or arguments.given("P")
    for number, properties in enumerate(shown):
        if number and not value_only:
            sys.stdout.write("\n")
        for name, value in properties.items():
            text = _text(name, value)
            if text or names or arguments.flag("all"):
                sys.stdout.write(f"{text}\n" if value_only else f"{name}={text}\n")
    return 0


def _text(name: str, value: object) -> str:
    if name in _TIMES:
        return timestamp(int(str(value))) if value else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(printable, value))
    return "" if value is None else printable(str(value))
