"""`pymachine processes`: a machine's processes, numbered as the host and as the machine do."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    one_name,
    print_json,
    print_table,
    size,
    terminal_width,
    timespan,
)
from machinectl_py.config.option import Option
from machinectl_py.runtime.inspect_processes import machine_processes
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.inspect_processes import Process

USAGE = "processes NAME [OPTION…]"
SUMMARY = "List a machine's processes, with their PIDs on the host and inside"
DETAILS = """\
Each process stands below its parent. PID is the host's number, INSIDE the machine's; a dash
there is a process in the machine's cgroup that is in another PID namespace. CGROUP is what the
machine sees; it begins with /.. for a process that entered the namespaces but not the cgroup."""
EXAMPLE = "pymachine processes debian"
OPTIONS = (
    Option(name="--full", short="-l", help="do not cut lines at the terminal's width"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_HEADS = ("PID", "INSIDE", "USER", "S", "RSS", "ELAPSED", "CGROUP", "COMMAND")


def run(arguments: Arguments) -> int:
    """Print a row for each process."""
    processes = machine_processes(require_running(one_name(arguments, "processes")))
    mode = json_mode(arguments)
    if mode:
        print_json([process.to_data() for process in processes], mode)
        return 0
    legend = not arguments.flag("no-legend")
    width = 0 if arguments.flag("full") else terminal_width()
    print_table(_HEADS, [_row(process) for process in processes], legend=legend, width=width)
    if legend:
        sys.stdout.write(f"\n{len(processes)} processes listed.\n")
    return 0


def _row(process: Process) -> tuple[str, ...]:
    return (
        str(process.pid),
        str(process.inside or ""),
        process.user,
        process.state,
        size(process.memory),
        timespan(process.elapsed),
        process.cgroup,
        "  " * process.depth + process.command,
    )
