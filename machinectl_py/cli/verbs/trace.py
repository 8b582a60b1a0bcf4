"""`pymachine trace`: the steps that a running machine took, with their durations."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.runtime.state import read_notify, read_trace, require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.state import TraceEntry

USAGE = "trace NAME [--svg=FILE]"
SUMMARY = "Show how long each step of a machine's start took"
DETAILS = """\
After a reboot, the steps whose work still stands are not taken again: they are marked as standing,
with the duration that they had."""
EXAMPLE = "pymachine trace debian --svg=boot.svg"
OPTIONS = (
    Option(name="--svg", value="FILE", help="draw the steps, and the boot until READY, in a file"),
    *JSON_OPTIONS,
)
COMMAND = -1
_COLOURS = {"launcher": "#4878a8", "supervisor": "#c87830", "inside": "#589858"}
_ROW, _WIDTH, _LEFT = 18, 900, 60


def run(arguments: Arguments) -> int:
    """Print the trace."""
    if len(arguments.words) != 1:
        raise UsageError("'trace' needs the name of one machine")
    if arguments.given("svg") and not arguments.text("svg"):
        raise UsageError("--svg= is empty")
    name = arguments.words[0]
    state = require_running(name)
    trace, ready = read_trace(state.name), read_notify(name).ready * 1000
    if arguments.given("svg"):
        with open(arguments.text("svg"), "w", encoding="utf-8") as file:
            file.write(draw(name, trace, ready))
        return 0
    mode = json_mode(arguments)
    if mode:
        print_json({"steps": [entry.to_data() for entry in trace], "ready": ready}, mode)
        return 0
    for line in lines(trace, ready):
        sys.stdout.write(f"{line}\n")
    return 0


def lines(trace: tuple[TraceEntry, ...], ready: int) -> Iterator[str]:
    """Yield the lines of the table: for each step when it began, and how long it took.

    Args:
        trace: the steps.
        ready: CLOCK_MONOTONIC of READY=1 in nanoseconds, or 0.
    """
    place, begun = "", _begin(trace)
    for entry in trace:
        if entry.place != place:
            place = entry.place
            yield f"{place}:"
        # What stands was begun in another boot, long before the first of these.
        when = f"{(entry.start - begun) / 1e6:>8.2f} ms"
        if entry.standing:
            when = f"{'standing':>{len(when)}}"
        yield f"{entry.index:>4} {when} {entry.duration / 1e6:>+8.2f} ms  {entry.describe}"
    if ready:
        yield f"READY=1 after {(ready - begun) / 1e6:.2f} ms"


def _begin(trace: tuple[TraceEntry, ...]) -> int:
    return min((entry.start for entry in trace if not entry.standing), default=0)


def draw(name: str, trace: tuple[TraceEntry, ...], ready: int) -> str:
    """Return an SVG picture of a trace, without what stands from an earlier boot.

    Args:
        name: of the machine.
        trace: the steps.
        ready: CLOCK_MONOTONIC of READY=1 in nanoseconds, or 0.
    """
    from html import escape

    begun, trace = _begin(trace), tuple(entry for entry in trace if not entry.standing)
    built = max((entry.start + entry.duration for entry in trace), default=1)
    scale = _WIDTH / max(built - begun, 1)
    height = (len(trace) + 3) * _ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 500}" height="{height}">',
        "<style>text { font: 11px sans-serif }</style>",
        f"<text x='4' y='13'>{escape(name)}: {(built - begun) / 1e6:.1f} ms to execve</text>",
    ]
    for number, entry in enumerate(trace, 1):
        x, y = _LEFT + (entry.start - begun) * scale, number * _ROW
        width = max(entry.duration * scale, 1)
        lines.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 4}"'
            f' fill="{_COLOURS[entry.place]}"/>'
        )
        text = f"{entry.describe[:70]} ({entry.duration / 1e6:.2f} ms)"
        lines.append(f'<text x="{x + width + 4:.1f}" y="{y + 12}">{escape(text)}</text>')
    if ready:
        y = (len(trace) + 1) * _ROW
        text = f"the init boots: {(ready - built) / 1e6:.0f} ms until READY=1 (not to scale)"
        lines.append(f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH}" height="14" fill="#a8a8a8"/>')
        lines.append(f'<text x="{_LEFT + 6}" y="{y + 12}">{escape(text)}</text>')
    return "\n".join([*lines, "</svg>", ""])
