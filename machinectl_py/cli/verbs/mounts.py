"""`pymachine mounts`: a machine's mount tree, with the propagation on both sides."""

from __future__ import annotations

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    one_name,
    print_json,
    print_table,
    terminal_width,
    tree_indents,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import DeniedError
from machinectl_py.runtime.inspect_mounts import machine_mounts
from machinectl_py.runtime.state import require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.inspect_mounts import MountView

USAGE = "mounts NAME [OPTION…]"
SUMMARY = "Show a machine's mounts as a tree, with their propagation on both sides"
DETAILS = """\
PROPAGATION is that of the mount inside: shared:N passes mounts to and from its peer group N,
slave:N receives from group N, private does neither, unbindable cannot be bound besides. HOST is
where the host has the same directory or file, with the propagation of its mount there; "from"
names the host's mount that a slave receives from. See mount_namespaces(7)."""
EXAMPLE = "pymachine mounts debian"
OPTIONS = (
    Option(name="--full", short="-l", help="do not cut lines at the terminal's width"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_HEADS = ("TARGET", "PROPAGATION", "HOST", "FSTYPE", "SOURCE", "OPTIONS")


def run(arguments: Arguments) -> int:
    """Print a row for each mount."""
    name = one_name(arguments, "mounts")
    try:
        mounts = machine_mounts(require_running(name))
    except PermissionError:
        raise DeniedError(f"Only root may see the mounts of machine '{name}'") from None
    mode = json_mode(arguments)
    if mode:
        print_json([mount.to_data() for mount in mounts], mode)
        return 0
    indents = tree_indents([mount.depth for mount in mounts])
    rows = [_row(mount, indent) for mount, indent in zip(mounts, indents, strict=True)]
    width = 0 if arguments.flag("full") else terminal_width()
    print_table(_HEADS, rows, legend=not arguments.flag("no-legend"), width=width)
    return 0


def _row(mount: MountView, indent: str) -> tuple[str, ...]:
    source = mount.source if mount.root == "/" else f"{mount.source}[{mount.root}]"
    return (
        indent + mount.target,
        mount.propagation,
        _host_side(mount),
        mount.fstype,
        source,
        mount.options,
    )


def _host_side(mount: MountView) -> str:
    parts = [f"{mount.host_path} ({mount.host_propagation})"] if mount.host_path else []
    parts += [f"from {mount.master_path}"] if mount.master_path else []
    return ", ".join(parts)
