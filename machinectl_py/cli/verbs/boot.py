"""`pymachine boot`: start a machine with its own init, in the background."""

from __future__ import annotations

import os
import sys

from machinectl_py.cli.machine_options import BACKGROUND_OPTIONS, files_mode, selection
from machinectl_py.cli.parse import Arguments
from machinectl_py.config.option import Option
from machinectl_py.errors import ConflictError, UsageError
from machinectl_py.images import store
from machinectl_py.images.records import find_machine
from machinectl_py.log import shows_info
from machinectl_py.runtime.launcher import Background
from machinectl_py.runtime.payload import boot_argv
from machinectl_py.runtime.prepare import Way, make_machine
from machinectl_py.runtime.settings import read_values
from machinectl_py.runtime.state import is_supervised
from machinectl_py.runtime.target import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.launcher import Started

USAGE = "boot NAME|-D DIR|-i PATH [OPTION…] [ARGUMENT OF THE INIT…]"
SUMMARY = "Boot a machine in the background"
DETAILS = """\
It returns once the machine's init reports that it is ready. Whatever fails before, nothing is left
of the machine but its root.

NAME is a machine, or an image that runs in place. With -M and another name, the machine of that
name is started, and first made of the image NAME where there is none, as by 'create'."""
EXAMPLE = "pymachine boot debian"
OPTIONS = (
    Option(name="--pull", help="get the image first if there is none of that name"),
    Option(name="--no-wait", help="do not wait until the machine is ready"),
    Option(name="--timeout", value="SECONDS", help="for getting ready, by default 90; 0: for ever"),
    Option(name="--attach", help="stay on its console; ^] three times leaves it"),
    Option(name="--quiet", short="-q", help="say nothing of success"),
    *BACKGROUND_OPTIONS,
)
COMMAND = 1


def run(arguments: Arguments) -> int:
    """Boot the machine."""
    if arguments.flag("pull"):
        _pull_missing(arguments)
    selected = selection(arguments)
    target = resolve(selected)
    name = target.name
    if is_supervised(name):
        raise ConflictError(
            f"Machine '{name}' is running already", f"'pymachine status {name}' shows it."
        )
    values = read_values(selected, target, files_mode(arguments))
    attach = arguments.flag("attach")
    argv = boot_argv(target, values, answered=attach)
    way = Way(kind="boot", argv=argv, console="background", foreground=False)
    spec, facts = make_machine(target, values, way)
    keep_unit = values.flag("keep_unit")
    timeout = arguments.number("timeout", 90)
    start = Background(spec, facts, log=1 if keep_unit else -1)
    progress = sys.stderr.isatty() and not arguments.flag("quiet")
    if progress:
        start.progress = _show
    try:
        started = start.start(wait=not arguments.flag("no-wait") and not attach, timeout=timeout)
    finally:
        if progress:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
    if "NOTIFY_SOCKET" in os.environ and keep_unit:
        _notify(f"MAINPID={started.supervisor}\nREADY=1\nSTATUS=Machine {name} is running.")
    if attach:
        return _attach(name)
    if not arguments.flag("quiet") and shows_info():
        _tell(name, started)
    return 0


def _pull_missing(arguments: Arguments) -> None:
    if not arguments.words or arguments.given("directory") or arguments.given("image"):
        raise UsageError("--pull needs the name of an image")
    name = arguments.words[0]
    store.check_name(name)
    if find_machine(name) is None and not store.image_exists(name):
        from machinectl_py.cli.verbs import pull

        pull.run(Arguments({"name": name}, ["debian"]))


def _show(status: str) -> None:
    line = "".join(c for c in status if c.isprintable())[:70]
    sys.stderr.write(f"\r\033[K{line}")
    sys.stderr.flush()


def _tell(name: str, started: Started) -> None:
    ready = f", ready after {started.ready_after:.2f} s" if started.ready_after else ""
    sys.stderr.write(
        f"Machine '{name}' runs with leader {started.leader}{ready}.\n"
        f"Enter it with 'pymachine shell {name}', end it with 'pymachine poweroff {name}'.\n"
    )


def _notify(text: str) -> None:
    """Tell the service manager; sd_notify(3)."""
    import _socket

    address = os.environ["NOTIFY_SOCKET"]
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    socket.connect("\0" + address[1:] if address.startswith("@") else address)
    socket.send(text.encode())
    socket.close()


def _attach(name: str) -> int:
    from machinectl_py.cli.verbs import console

    return int(console.attach(name))
