"""`pymachine plan`: the steps that `boot` would take."""

from __future__ import annotations

import sys

from machinectl_py.cli.machine_options import MACHINE_OPTIONS, make_machine, resolve_root
from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json
from machinectl_py.config.spec import Payload
from machinectl_py.images import store
from machinectl_py.plan.build import build_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "plan NAME|-D DIR [OPTION…]"
SUMMARY = "Show the steps that 'boot' would take"
DETAILS = """\
In their order, grouped by the process that takes them, each with the manual page of the kernel call
or interface behind it, and why it stands where it does."""
EXAMPLE = "pymachine plan debian"
OPTIONS = (*MACHINE_OPTIONS, *JSON_OPTIONS)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Print the plan."""
    name, root, words = resolve_root(arguments)
    spec, facts = make_machine(
        arguments,
        name=name,
        root=root,
        payload=Payload(kind="boot", argv=(store.find_init(root), *words)),
        console="background",
        foreground=False,
    )
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
