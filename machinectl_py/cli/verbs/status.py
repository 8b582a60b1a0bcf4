"""`pymachine status`: what there is to know of a machine, in the manner of `machinectl status`."""

from __future__ import annotations

import sys
import time

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    json_mode,
    print_json,
    printable,
    seconds,
    shorten,
    size,
    terminal_width,
    timespan,
    timestamp,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError
from machinectl_py.kernel import cgroupfs, procfs
from machinectl_py.layout import CLASS
from machinectl_py.runtime.inspect_network import (
    host_interfaces,
    machine_addresses,
    machine_network,
)
from machinectl_py.runtime.inspect_os import os_release
from machinectl_py.runtime.inspect_processes import cgroup_tree
from machinectl_py.runtime.inspect_resources import resources
from machinectl_py.runtime.properties import read_properties, ready_after, uptime
from machinectl_py.runtime.state import read_notify, require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.inspect_processes import CgroupNode
    from machinectl_py.runtime.inspect_resources import Resources
    from machinectl_py.runtime.state import MachineState

_OUTPUTS = (  # journalctl(1)
    *("short", "short-full", "short-iso", "short-iso-precise", "short-precise", "short-monotonic"),
    *("short-delta", "short-unix", "verbose", "export", "json", "json-pretty", "json-sse"),
    *("json-seq", "cat", "with-unit"),
)

USAGE = "status NAME… [OPTION…]"
SUMMARY = "Show how machines are, with their processes by cgroup"
DETAILS = """\
Memory is shown where a controller of cgroup v2 counts it, lines of the journal where systemd
manages the machine: those about its unit, since it was started.
"""
EXAMPLE = "pymachine status debian"
OPTIONS = (
    Option(name="--full", short="-l", help="do not cut lines at the terminal's width"),
    Option(name="--lines", short="-n", value="N", help="lines of the journal; default: 10"),
    Option(
        name="--output",
        short="-o",
        value="MODE",
        choices=_OUTPUTS,
        help="their form, as journalctl's; default: short",
    ),
    *JSON_OPTIONS,
)
COMMAND = -1
_MINUTE = 60_000_000
_LINES = 10  # machinectl's
_LABEL_WIDTH = 16  # machinectl's, so that the colons stand where the eye looks for them


def run(arguments: Arguments) -> int:
    """Print each machine's status."""
    if not arguments.words:
        raise UsageError("'status' needs the name of a machine")
    mode = json_mode(arguments)
    if mode:
        if arguments.given("lines") or arguments.given("output"):
            raise UsageError("--lines= and --output= are for the journal, which JSON leaves out")
        print_json([_data(require_running(name)) for name in arguments.words], mode)
        return 0
    lines = _line_count(arguments)
    output = arguments.text("output") if arguments.given("output") else "short"
    width = 0 if arguments.flag("full") else terminal_width()
    for number, name in enumerate(arguments.words):
        state = require_running(name)
        if number:
            sys.stdout.write("\n")
        for line in _lines(state):
            sys.stdout.write(shorten(printable(line), width) + "\n")
        told = _journal(state, lines, output)
        for line in ("", *told) if told else ():
            sys.stdout.write(shorten(printable(line), width) + "\n")
    return 0


def _line_count(arguments: Arguments) -> int:
    if not arguments.given("lines"):
        return _LINES
    text = arguments.text("lines")
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"--lines= takes a whole number, not '{text}'")
    return int(text)


def _journal(state: MachineState, lines: int, output: str) -> list[str]:
    if not lines or not state.unit:
        return []
    from machinectl_py.runtime.inspect_journal import journal_lines

    return journal_lines(state, lines, output)


def _data(state: MachineState) -> dict[str, object]:
    """Return the properties and the tree of cgroups."""
    used = resources(state.cgroup)
    return {
        **read_properties(state),
        "Resources": {
            "Tasks": used.tasks,
            "TasksMax": used.tasks_max,
            "Memory": used.memory,
            "MemoryMax": used.memory_max,
            "CPUUSec": used.cpu,
        },
        "Processes": _tree_data(cgroup_tree(state.cgroup)),
    }


def _tree_data(node: CgroupNode) -> dict[str, object]:
    return {
        "name": node.name,
        "processes": [{"pid": pid, "command": command} for pid, command in node.processes],
        "children": [_tree_data(child) for child in node.children],
    }


def _lines(state: MachineState) -> Iterator[str]:
    yield f"{state.name}({state.machine_id})" if state.machine_id else state.name
    for label, text in _fields(state):
        if text:
            yield f"{label:>{_LABEL_WIDTH}}{':' if label else ' '} {text}"
    for line in _tree_lines(cgroup_tree(state.cgroup), ""):
        yield " " * (_LABEL_WIDTH + 2) + line


def _fields(state: MachineState) -> Iterator[tuple[str, str]]:
    """Yield labels and texts in machinectl's order, ours after them."""
    yield "Since", _since(state)
    yield "Leader", _process(state.leader)
    yield "Service", f"{state.service}; class {CLASS}"
    yield "Root", state.root
    yield "Iface", " ".join(name for _, name in host_interfaces(state))
    yield "Network", machine_network(state)
    for number, address in enumerate(machine_addresses(state)):
        yield "" if number else "Address", address
    yield "OS", os_release(state).get("PRETTY_NAME", "")
    yield "State", _readiness(state)
    yield "Status", f'"{text}"' if (text := read_notify(state.name).status) else ""
    yield "Uptime", _uptime(state)
    yield from _resource_fields(resources(state.cgroup))
    yield "Supervisor", _process(state.supervisor)
    yield "Manager", state.manager + (", registered with systemd-machined" * state.registered)
    yield "Unit", state.unit
    yield "CGroup", state.cgroup


def _resource_fields(used: Resources) -> Iterator[tuple[str, str]]:
    """Yield them in the manner of systemctl(1)."""
    most = f" (limit: {used.tasks_max})" if used.tasks_max is not None else ""
    yield "Tasks", f"{used.tasks}{most}"
    if used.memory is not None:
        most = f" (max: {size(used.memory_max)})" if used.memory_max is not None else ""
        yield "Memory", size(used.memory) + most
    if used.cpu is not None:
        yield "CPU", seconds(used.cpu) if used.cpu < _MINUTE else timespan(used.cpu)


def _since(state: MachineState) -> str:
    ago = max(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - state.started_monotonic, 0)
    return f"{timestamp(state.started)}; {timespan(ago)} ago"


def _process(pid: int) -> str:
    try:
        return f"{pid} ({procfs.comm(pid)})"
    except OSError:  # ended, or hidden by hidepid=
        return str(pid)


def _readiness(state: MachineState) -> str:
    if cgroupfs.is_frozen(f"{state.cgroup}/payload"):
        return f"{state.phase}, frozen"
    after = ready_after(state)
    if after:
        return f"{state.phase}, ready after {seconds(after)}"
    return f"{state.phase}, not ready yet" if state.kind == "boot" else state.phase


def _uptime(state: MachineState) -> str:
    """Return how long the machine has been up by its own clock, and how often it was started."""
    try:
        text = timespan(uptime(state))
    except OSError:
        return ""
    return f"{text}, boot number {state.boots}" if state.boots > 1 else text


def _tree_lines(node: CgroupNode, indent: str) -> Iterator[str]:
    """Yield the processes and cgroups below a node, in the manner of systemd-cgls(1)."""
    size = max((len(str(pid)) for pid, _ in node.processes), default=0)
    entries: list[tuple[str, CgroupNode | None]] = [
        (f"{pid:>{size}} {command}", None) for pid, command in node.processes
    ]
    entries += [(child.name, child) for child in node.children]
    for number, (text, child) in enumerate(entries):
        last = number == len(entries) - 1
        yield f"{indent}{'└─' if last else '├─'}{text}"
        if child:
            yield from _tree_lines(child, f"{indent}{'  ' if last else '│ '}")
