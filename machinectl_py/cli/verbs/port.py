"""`pymachine port`: ports of the host that lead to machines, also while they run."""

from __future__ import annotations

import os
import sys

from machinectl_py.cli.parse import closest
from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
)
from machinectl_py.config.network_values import from_port, port
from machinectl_py.errors import DeniedError, UsageError
from machinectl_py.log import warn
from machinectl_py.runtime.state import read_spec, require_running, running_machines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.spec import PortSpec

USAGE = "port list [NAME…]|add NAME PORT…|remove NAME PORT… [OPTION…]"
SUMMARY = "Forward ports of the host to a machine that runs, or no more"
DETAILS = """\
PORT is as of 'boot --port=': [PROTOCOL:][ADDRESS:]PORT[-PORT][:PORT[-PORT]]. What is changed holds
until the machine ends, over its reboots too; for good it stands in its settings file."""
EXAMPLE = "pymachine port add web 8080:80"
OPTIONS = (LEGEND_OPTION, *JSON_OPTIONS)
COMMAND = -1
# What the words after each are; also for completions.
ACTS: dict[str, tuple[str, ...]] = {
    "list": ("machine",),
    "add": ("machine", "port"),
    "remove": ("machine", "port"),
}


def run(arguments: Arguments) -> int:
    """Do what the first word says."""
    if not arguments.words:
        raise UsageError(f"'port' needs one of {', '.join(ACTS)}")
    act, *words = arguments.words
    if act not in ACTS:
        raise UsageError(f"Unknown verb 'port {act}'" + closest(act, tuple(ACTS)))
    if os.geteuid():
        raise DeniedError("Only root may see and change ports", "Try again with sudo.")
    if act == "list":
        _list(arguments, words)
        return 0
    if len(words) < 2:
        raise UsageError(f"'port {act}' needs the name of a machine, and ports")
    from machinectl_py.runtime.live_ports import add_ports, remove_ports

    name, ports = words[0], tuple(value for text in words[1:] for value in _read(text))
    if act == "remove":
        remove_ports(name, ports)
    elif warning := add_ports(name, ports):
        warn(warning)
    return 0


def _read(text: str) -> tuple[PortSpec, ...]:
    try:
        return port(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is not valid: expected {error}") from error


def _list(arguments: Arguments, names: list[str]) -> None:
    states = [require_running(name) for name in names] if names else running_machines()
    rows: list[tuple[str, ...]] = [
        (state.name, from_port(one)) for state in states for one in read_spec(state).network.ports
    ]
    if mode := json_mode(arguments):
        print_json([{"machine": name, "port": text} for name, text in rows], mode)
        return
    legend = not arguments.flag("no-legend")
    if rows:
        print_table(("MACHINE", "PORT"), rows, legend=legend)
    if legend:
        sys.stdout.write(f"\n{len(rows)} ports listed.\n" if rows else "No ports.\n")
