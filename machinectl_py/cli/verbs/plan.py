"""`pymachine plan`: the steps that `boot` would take."""

from __future__ import annotations

import sys

from machinectl_py.cli.machine_options import BACKGROUND_OPTIONS, files_mode, selection
from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json
from machinectl_py.config.option import Option
from machinectl_py.plan.build import build_plan
from machinectl_py.runtime.payload import boot_argv
from machinectl_py.runtime.prepare import Way, make_machine
from machinectl_py.runtime.settings import read_values
from machinectl_py.runtime.target import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "plan NAME|-D DIR|-i PATH [OPTION…]"
SUMMARY = "Show the steps that 'boot' would take"
DETAILS = """\
In their order, grouped by the process that takes them, each with the manual page of the kernel call
or interface behind it, and why it stands where it does."""
EXAMPLE = "pymachine plan debian"
# -j is JSON's here.
OPTIONS = (
    Option(name="--show-settings", help="show the settings instead, each with where it is from"),
    *(row for row in BACKGROUND_OPTIONS if row.name != "--j"),
    *JSON_OPTIONS,
)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Print the plan."""
    selected = selection(arguments)
    target = resolve(selected, fill=False)
    values = read_values(selected, target, files_mode(arguments))
    argv = boot_argv(target, values)
    way = Way(kind="boot", argv=argv, console="background", foreground=False)
    spec, facts = make_machine(target, values, way)
    if arguments.flag("show-settings"):
        from machinectl_py.cli.settings_view import print_settings

        print_settings(spec, values.origins)
        return 0
    rows = build_plan(spec, facts).rows()
    mode = json_mode(arguments)
    if mode:
        print_json(rows, mode)
        return 0
    place = ""
    for row in rows:
        if row["place"] != place:
            place = row["place"]
            sys.stdout.write(f"{place}:\n")
        sys.stdout.write(f"{row['index']:>4}  {row['describe']}  [{row['call']}]\n")
        if row["because"]:
            sys.stdout.write(f"        {row['because']}\n")
    return 0
