"""`pymachine start`: machines as units of systemd's."""

from __future__ import annotations

from machinectl_py.errors import UsageError
from machinectl_py.managers.choose import systemd_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "start NAME…"
SUMMARY = "Start machines as units"
DETAILS = """\
As 'systemctl start pymachine@NAME.service', whose settings and limits count, and which starts a
machine again that reboots. Where no systemd manages the host it is 'boot NAME'."""
EXAMPLE = "pymachine start web db"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1


def run(arguments: Arguments) -> int:
    """Start each."""
    if not arguments.words:
        raise UsageError("'start' needs the name of a machine")
    if systemd_runs():
        from machinectl_py.runtime.units import run_systemctl

        run_systemctl("start", arguments.words)
    from machinectl_py.cli.parse import Arguments as Words
    from machinectl_py.cli.verbs import boot

    return max(boot.run(Words({}, [name])) for name in arguments.words)
