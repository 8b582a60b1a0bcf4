"""`pymachine clean`: images that nobody needs."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import size
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "clean [OPTION…]"
SUMMARY = "Remove hidden images and kept downloads, or all"
DETAILS = """\
Hidden are those whose name begins with a dot. The files that downloads left or kept go too. With
--all everything goes that is not in use: machines with their snapshots, and images."""
EXAMPLE = "pymachine clean"
OPTIONS = (Option(name="--all", short="-a", help="remove all machines and images"),)
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Remove them; say what, and how much."""
    if arguments.words:
        raise UsageError("'clean' takes no arguments", "'remove NAME' removes one.")
    from machinectl_py.images.clean import clean

    total, failed = 0, False
    for one in clean(_busy(), everything=arguments.flag("all")):
        if one.problem:
            sys.stderr.write(f"pymachine: {one.name} stays: {one.problem}\n")
            failed = True
        else:
            total += one.usage
            sys.stdout.write(f"{one.name}\n")
    sys.stderr.write(f"Total space freed: {size(total)}\n")
    return int(failed)


def _busy() -> frozenset[str]:
    """Return the roots and layers of the machines that run, ephemeral ones beside their image."""
    from machinectl_py.codec import decode
    from machinectl_py.layout import machine_dir
    from machinectl_py.runtime.state import read_text, running_machines

    paths = set()
    for state in running_machines():
        mounts = decode(read_text(f"{machine_dir(state.name)}/facts.json"))["mounts"]
        paths |= {state.root, mounts["layer"], mounts["snapshot"]}
    return frozenset(paths)
