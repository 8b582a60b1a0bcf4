"""The texts of --help and --version, made from the verbs' own tables."""

from __future__ import annotations

import sys

from machinectl_py import __version__
from machinectl_py.cli.main import VERBS, find_verb, load_verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from machinectl_py.config.option import Option

_COLUMN = 33  # where the explanations begin


def print_overview(stream: TextIO) -> None:
    """Print the verbs by group."""
    stream.write("pymachine [VERB] …: system containers that boot a whole distribution\n")
    for group, verbs in VERBS.items():
        stream.write(f"\n{group}:\n")
        stream.writelines(
            f"  {verb:<12} {load_verb(module).SUMMARY}\n" for verb, module in verbs.items()
        )
    stream.write(
        "\n'pymachine VERB --help' shows a verb's options and an example.\n"
        "'pymachine --version' shows the version.\n"
    )


def print_verb(word: str) -> int:
    """Print the help of one verb."""
    verb = load_verb(find_verb(word))
    lines = [f"pymachine {verb.USAGE}", "", verb.SUMMARY]
    if verb.DETAILS:
        lines += ["", verb.DETAILS.strip("\n")]
    title = ""
    for option in verb.OPTIONS:
        if (group := _group(option)) != title:
            title = group
            lines += ["", f"{title}:"]
        lines.append(_option_line(option))
    lines += ["", "Example:", f"  {verb.EXAMPLE}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _group(option: Option) -> str:
    """Return the heading that an option stands under."""
    if not hasattr(option, "group"):
        return "Options"
    from machinectl_py.config.table import GROUPS

    return GROUPS[option.group]


def _option_line(option: Option) -> str:
    value = option.value
    if value:
        value = f"[={value}]" if option.optional_value else f"={value}"
    if option.name == f"-{option.short}":  # a letter without a long name: "-j"
        spelling = option.short
    else:
        spelling = f"{option.short + ' ' if option.short else '   '}{option.name}{value}"
    if len(spelling) > _COLUMN:
        return f"  {spelling}\n  {'':<{_COLUMN}} {option.help}"
    return f"  {spelling:<{_COLUMN}} {option.help}"


def print_version() -> int:
    """Print the version and what this host offers."""
    sys.stdout.write(f"pymachine {__version__} (Python {sys.version.split()[0]})\n")
    return 0
