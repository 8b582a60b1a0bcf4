"""Listings: a table for people, JSON for programs; on standard output."""

from __future__ import annotations

import sys

from machinectl_py.cli.parse import Option
from machinectl_py.codec import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machinectl_py.cli.parse import Arguments

JSON_OPTIONS = (
    Option(
        name="--json",
        value="MODE",
        choices=("pretty", "short", "off"),
        help="print JSON instead of a table: pretty, short, off",
    ),
    Option(name="--j", short="-j", help="JSON: pretty on a terminal, else short"),
)
LEGEND_OPTION = Option(name="--no-legend", help="print no column heads and no footer")


def json_mode(arguments: Arguments) -> str:
    """Return "pretty", "short" or "" for a table."""
    if arguments.given("json"):
        mode = arguments.text("json")
        return "" if mode == "off" else mode
    if arguments.flag("j"):
        return "pretty" if sys.stdout.isatty() else "short"
    return ""


def print_json(value: Any, mode: str) -> None:
    """Print a value as JSON: "short" on one line, "pretty" indented."""
    if mode == "pretty":
        import json

        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(encode(value) + "\n")


def print_table(heads: tuple[str, ...], rows: list[tuple[str, ...]], *, legend: bool) -> None:
    """Print columns, each as wide as its widest cell; an empty cell is a dash, as machinectl's."""
    cells = [[cell or "-" for cell in row] for row in rows]
    lines = ([list(heads)] if legend else []) + cells
    widths = [max((len(line[n]) for line in lines), default=0) for n in range(len(heads))]
    for line in lines:
        text = " ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(text.rstrip() + "\n")
