"""Listings: a table for people, JSON for programs; on standard output."""

from __future__ import annotations

import os
import sys
import time

from machinectl_py.codec import encode
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

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


def one_name(arguments: Arguments, verb: str) -> str:
    """Return the one machine's name that a verb takes.

    Raises:
        UsageError: there is none, or more.
    """
    if len(arguments.words) != 1:
        raise UsageError(f"'{verb}' takes the name of one machine")
    return arguments.words[0]


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

        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        # Bytes of /proc that are no UTF-8 are lone surrogates, which JSON can only escape.
        sys.stdout.write(text.encode(errors="backslashreplace").decode())
    else:
        sys.stdout.write(encode(value) + "\n")


def printable(text: str) -> str:
    """Return a text of a machine's with control characters escaped.

    Names of processes, os-release and status texts are the machine's to choose: they must not
    drive the terminal of who looks at them.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "replace").decode()
        for letter in text
    )


def terminal_width() -> int:
    """Return the columns of the terminal on standard output; 0 if it is none."""
    try:
        return os.get_terminal_size(1).columns
    except OSError:
        return 0


def shorten(text: str, width: int) -> str:
    """Return a text of at most `width` columns, cut with an ellipsis; 0 is no limit."""
    return text[: width - 1] + "…" if 0 < width < len(text) else text


def print_table(
    heads: tuple[str, ...], rows: list[tuple[str, ...]], *, legend: bool, width: int = 0
) -> None:
    """Print columns, each as wide as its widest cell; an empty cell is a dash, as machinectl's.

    Args:
        heads: the heads of the columns.
        rows: the cells; one of several lines continues below, as a list of addresses does.
        legend: whether the heads are printed.
        width: columns at which lines are cut; 0 cuts none.
    """
    lines = [list(heads)] if legend else []
    for row in rows:
        lines += _lines_of(row)
    widths = [max((len(line[n]) for line in lines), default=0) for n in range(len(heads))]
    for line in lines:
        text = " ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True))
        sys.stdout.write(shorten(text.rstrip(), width) + "\n")


def _lines_of(row: tuple[str, ...]) -> list[list[str]]:
    """Return the lines that a row takes: as many as its tallest cell."""
    cells = [[printable(line) for line in (cell or "-").split("\n")] for cell in row]
    height = max(map(len, cells))
    return [[cell[n] if n < len(cell) else "" for cell in cells] for n in range(height)]


def tree_indents(depths: list[int]) -> list[str]:
    """Return what to draw before each row of a tree that is listed parents first.

    Args:
        depths: of each row; a child's is its parent's plus one.
    """
    indents: list[str] = []
    open_below: set[int] = set()  # depths at which a later row continues
    for depth in reversed(depths):
        open_below = {level for level in open_below if level <= depth}
        bars = "".join("│ " if level in open_below else "  " for level in range(1, depth))
        elbow = "├─" if depth in open_below else "└─"
        indents.append(bars + elbow if depth else "")
        open_below.add(depth)
    return indents[::-1]


def timestamp(microseconds: int) -> str:
    """Return a CLOCK_REALTIME time as systemd prints it: "Tue 2026-11-24 00:20:17 UTC"."""
    return time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(microseconds // 1_000_000))


_UNITS = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
)


def timespan(microseconds: int) -> str:
    """Return a duration by its two largest units: "2h 5min", "12s", "530ms"."""
    parts: list[str] = []
    for name, size in _UNITS:
        if microseconds >= size and len(parts) < 2 and (name != "ms" or not parts):
            parts.append(f"{microseconds // size}{name}")
            microseconds %= size
    return " ".join(parts) or "0ms"


def seconds(microseconds: int) -> str:
    """Return a short duration with two digits after the point: "0.53 s"."""
    return f"{microseconds / 1_000_000:.2f} s"


def size(amount: int) -> str:
    """Return bytes as systemd prints them: "512B", "3.4M"."""
    value, unit = float(amount), "B"
    for larger in "KMGTP":
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{amount}B" if unit == "B" else f"{value:.1f}{unit}"
