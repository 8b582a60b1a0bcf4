"""`pymachine monitor`: what happens to machines, as it happens."""

from __future__ import annotations

import sys
import time

from machinectl_py.cli.render import JSON_OPTIONS, json_mode, print_json, printable
from machinectl_py.config.option import Option
from machinectl_py.images.store import check_name
from machinectl_py.runtime.events import MachineEvents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.events import Event

USAGE = "monitor [NAME…] [OPTION…]"
SUMMARY = "Print what happens to machines, until Ctrl-C"
DETAILS = """\
A line when a machine comes, when its state changes, when its init is ready or says what it does,
and when it has gone; at first a line for each that runs. With --json=short each is an object on a
line of its own."""
EXAMPLE = "pymachine monitor web --json=short"
OPTIONS = (
    Option(name="--no-initial", help="leave out those that run already"),
    *JSON_OPTIONS,
)
COMMAND = -1
# Seconds. A Ctrl-C that came just before epoll_wait(2) began is noticed only after it.
_LOOK_AGAIN = 0.5


def run(arguments: Arguments) -> int:
    """Print events until interrupted."""
    mode = json_mode(arguments)
    wanted = frozenset(arguments.words)
    for name in wanted:
        check_name(name)
    with MachineEvents() as events:
        told = () if arguments.flag("no-initial") else events.machines()
        try:
            while True:
                for event in told:
                    if not wanted or event.machine in wanted:
                        _print(event, mode)
                sys.stdout.flush()
                told = events.read(_LOOK_AGAIN)
        except KeyboardInterrupt:  # how it is meant to end
            return 0


def _print(event: Event, mode: str) -> None:
    now = time.time()
    if mode:
        print_json({"timestamp": int(now * 1_000_000), **event.to_data()}, mode)
        return
    state = event.state or "gone"
    if event.ready and event.state == "running":
        state = "ready"
    words = (time.strftime("%F %T", time.localtime(now)), event.machine, state, event.status)
    sys.stdout.write(printable(" ".join(filter(None, words))) + "\n")
