"""Ends machines and sees it through: poweroff, reboot, terminate, kill."""

from __future__ import annotations

import os
import select
import time

from machinectl_py.errors import ConflictError, DeniedError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.kernel.process import pidfd_open, pidfd_send_signal
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.runtime.state import find_running, is_supervised, read_notify, require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.runtime.state import MachineState

# systemd(1), "Signals": SIGRTMIN+4 starts poweroff.target, SIGRTMIN+5 reboot.target.
_POWEROFF, _REBOOT = 38, 39
_SIGTERM, _SIGKILL = 15, 9
_STEP = 0.01  # seconds between two looks


def _require_root() -> None:
    if os.geteuid():
        raise DeniedError("Only root may signal machines", "Try again with sudo.")


def _signal_leader(state: MachineState, number: int) -> None:
    _require_root()
    pidfd = pidfd_open(state.leader)
    try:
        if start_ticks(state.leader) != state.leader_start:
            raise ProcessLookupError(3, "No such process")
        pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _thaw(state: MachineState) -> None:
    """Let a frozen machine go on, to heed a signal."""
    if cgroupfs.is_frozen(f"{state.cgroup}/payload"):
        cgroupfs.thaw(f"{state.cgroup}/payload")


def _wait(
    name: str,
    timeout: float,
    over: Callable[[], bool],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    deadline = time.monotonic() + timeout if timeout else None
    while not over():
        if deadline is not None and time.monotonic() > deadline:
            raise ConflictError(
                f"Machine '{name}' has not ended within {timeout:g} s",
                f"'pymachine terminate {name}' ends it at once.",
            )
        pause(_STEP)


def _until_end_of(pid: int) -> Callable[[float], None]:
    """Return what sleeps for some seconds, the one time until this process has ended."""
    poll = select.poll()
    try:
        poll.register(pidfd_open(pid), select.POLLIN)
    except ProcessLookupError:
        pass

    def pause(seconds: float) -> None:
        for pidfd, _ in poll.poll(seconds * 1000):
            poll.unregister(pidfd)
            os.close(pidfd)

    return pause


def _wait_gone(state: MachineState, timeout: float) -> None:
    """Wait until nothing is left of a machine; its supervisor is the last, or systemd's scope."""
    _wait(state.name, timeout, lambda: _gone(state), _until_end_of(state.supervisor))


def _gone(state: MachineState) -> bool:
    """Say whether nothing is left; what a supervisor that is killed meanwhile leaves is removed."""
    running = find_running(state.name) is not None or is_supervised(state.name)
    return not running and not os.path.isdir(state.cgroup)


def poweroff(name: str, timeout: float) -> None:
    """Have the machine's init shut down, and wait until nothing is left of the machine.

    Args:
        name: of the machine.
        timeout: seconds; 0 waits for ever.

    Raises:
        NotFoundError: it does not run.
        ConflictError: it has not ended in time.
    """
    state = require_running(name)
    _signal_leader(state, _POWEROFF if state.kind == "boot" else _SIGTERM)
    _thaw(state)
    _wait_gone(state, timeout)


def reboot(name: str, timeout: float) -> None:
    """Have the machine's init reboot, and wait until the next is ready."""
    state = require_running(name)
    if state.kind != "boot":
        raise UnsupportedError(f"Machine '{name}' runs a command, which cannot reboot")
    _signal_leader(state, _REBOOT)
    _thaw(state)

    def again() -> bool:
        now = find_running(name)
        if now is None and not is_supervised(name) and state.manager != "unit":
            raise ConflictError(f"Machine '{name}' has ended and did not start again")
        return bool(now and now.leader_start != state.leader_start and read_notify(name).ready)

    _wait(name, timeout, again)


def terminate(name: str) -> None:
    """Kill every process of the machine and wait until nothing is left of it."""
    state = require_running(name)
    _signal_leader(state, _SIGKILL)
    _wait_gone(state, 30)


def kill(name: str, number: int, whom: str) -> None:
    """Send a signal to the leader, or to all processes of the machine."""
    state = require_running(name)
    if whom == "leader":
        _signal_leader(state, number)
        return
    _require_root()
    for pid in cgroupfs.pids(f"{state.cgroup}/payload", recursive=True):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
