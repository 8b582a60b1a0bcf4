"""The child in the new namespaces: executes the inside half of the plan, then the payload."""

from __future__ import annotations

import _signal
import os
import sys

from machinectl_py.errors import PymachineError
from machinectl_py.plan.context import APART
from machinectl_py.runtime.walk import Aborted, failure_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from machinectl_py.plan.step import Step
    from machinectl_py.runtime.walk import Peer, Walk


def preload() -> None:
    """Import what the steps inside import late: after the pivot it would be the machine's."""
    for name in ("binascii", "fcntl", "resource", "select", "machinectl_py.kernel.seccomp"):
        __import__(name)


def become_init(walk: Walk, supervisor: Peer) -> NoReturn:
    """Go on as PID 1: walk the inside steps; the last one executes the payload."""
    _signal.set_wakeup_fd(-1)
    for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGURG, _signal.SIGWINCH):
        _signal.signal(number, _signal.SIG_DFL)
    sys.meta_path.clear()  # sealed: no import from here on
    for peer in walk.peers.values():
        peer.close()
    walk.peers = {"supervisor": supervisor}
    walk.places, walk.trace = ("inside",), []
    offset = walk.context.slots.get("clock-offset", 0)
    assert isinstance(offset, int)
    if APART not in walk.context.slots:
        walk.context.clock_offset = offset
    first = next(n for n, step in enumerate(walk.plan.steps) if step.place == "inside")

    def before(step: Step) -> None:
        if step is walk.plan.steps[-1]:
            told = {"executing": 1, "trace": walk.trace, "warnings": walk.context.warnings}
            supervisor.send(told)
            # One that died before we asked the kernel to die with it, in our first step.
            if supervisor.is_gone():
                raise Aborted

    walk.before, walk.after = before, lambda _step: None
    walk.on_message = _stop_when_alone
    try:
        walk.run(first)
    except (PymachineError, OSError) as error:
        supervisor.send({"failed": failure_data(error)})
    except BaseException as error:  # noqa: BLE001 - the supervisor tells it, we have no terminal
        message = f"{type(error).__name__} in the init wrapper: {error}"
        supervisor.send({"failed": {"message": message, "hint": ""}})
    os._exit(1)


def _stop_when_alone(_peer: str, _message: dict[str, object]) -> None:
    raise Aborted
