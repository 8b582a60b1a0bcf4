"""`pymachine namespaces`: which namespaces are a machine's own, and who else is in them."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    one_name,
    print_json,
    print_table,
    terminal_width,
)
from machinectl_py.config.option import Option
from machinectl_py.runtime.inspect_namespaces import machine_namespaces
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.inspect_namespaces import Namespace, NamespaceView

USAGE = "namespaces NAME [OPTION…]"
SUMMARY = "Show a machine's namespaces beside the host's, and who else is in them"
DETAILS = """\
A namespace is known by its inode, as /proc/PID/ns has it: the same number is the same namespace.
INSIDE counts the machine's processes that are in the same one as its leader; the others have
made one of their own, as services with PrivateTmp= do. OTHERS are processes that are in it but
not in the machine's cgroup, such as somebody's nsenter(1)."""
EXAMPLE = "pymachine namespaces debian"
OPTIONS = (
    Option(name="--full", short="-l", help="name all others, and cut no line"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_HEADS = ("TYPE", "HOST", "MACHINE", "IS", "INSIDE", "OTHERS")
_MOST_NAMED = 3


def run(arguments: Arguments) -> int:
    """Print a row for each type."""
    view = machine_namespaces(require_running(one_name(arguments, "namespaces")))
    mode = json_mode(arguments)
    if mode:
        print_json(_data(view), mode)
        return 0
    full = arguments.flag("full")
    legend = not arguments.flag("no-legend")
    rows = [_row(namespace, view.processes, full=full) for namespace in view.namespaces]
    print_table(_HEADS, rows, legend=legend, width=0 if full else terminal_width())
    if legend:
        whose = "PID 1" if view.host_process == "PID 1" else "this process (PID 1 hides its own)"
        sys.stdout.write(f"\nHOST is {whose}; the machine has {view.processes} processes.\n")
        if not any(namespace.machine for namespace in view.namespaces):
            sys.stdout.write("Those of the machine are for root alone to see.\n")
    return 0


def _data(view: NamespaceView) -> dict[str, object]:
    rows = [
        {
            **namespace.to_data(),
            "shared": namespace.shared if namespace.machine else None,  # None: not ours to see
            "others": [{"pid": pid, "name": name} for pid, name in namespace.others],
        }
        for namespace in view.namespaces
    ]
    return {**view.to_data(), "namespaces": rows}


def _row(namespace: Namespace, processes: int, *, full: bool) -> tuple[str, ...]:
    visible = bool(namespace.machine)
    inside = f"{namespace.members} of {processes}" if namespace.members < processes else "all"
    return (
        namespace.type,
        namespace.host,
        namespace.machine,
        ("shared" if namespace.shared else "private") if visible else "",
        inside if visible else "",
        _others(namespace, full=full) if visible else "",
    )


def _others(namespace: Namespace, *, full: bool) -> str:
    """Return how many others there are, and the first of them by name and PID."""
    if not namespace.others:
        return ""
    named = namespace.others if full else namespace.others[:_MOST_NAMED]
    names = ", ".join(f"{name}({pid})" for pid, name in named)
    return f"{len(namespace.others)}: {names}" + (", …" * (len(named) < len(namespace.others)))
