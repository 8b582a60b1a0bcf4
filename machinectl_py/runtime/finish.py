"""After the leader's end: start the machine again, or undo everything and leave."""

from __future__ import annotations

import os
import sys

from machinectl_py.codec import decode
from machinectl_py.errors import EXIT_REBOOT, PymachineError
from machinectl_py.kernel import cgroupfs
from machinectl_py.kernel.locks import drop_lock
from machinectl_py.layout import lock_path
from machinectl_py.runtime.changes import Changes
from machinectl_py.runtime.journal import remove_state, undo_journal
from machinectl_py.runtime.recover import make_hooks
from machinectl_py.runtime.state import read_facts, read_spec, read_state
from machinectl_py.runtime.walk import Aborted, Peer, failure_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SIGHUP = 1  # how PID 1 of a PID namespace ends by reboot(RB_AUTOBOOT); reboot(2)


def main() -> NoReturn:
    """Finish the machine of argv[1]; never returns."""
    told = decode(sys.argv[1])
    status = told["status"]
    rebooting = os.WIFSIGNALED(status) and os.WTERMSIG(status) == _SIGHUP
    state = read_state(told["name"])
    code = 0
    if rebooting and state.manager != "unit":
        code = _reboot(told)
    elif rebooting:
        code = EXIT_REBOOT
    clean_up(told["name"], told["lock"], {"root-lock": told["root-lock"], **told["held"]})
    if told["launcher"] >= 0:
        import _socket

        ended = {"status": status, "ready": told["ready"], "output": told["output"]}
        Peer(_socket.socket(fileno=told["launcher"])).send({"ended": ended})
    os._exit(code)


def clean_up(name: str, lock: int, kept: dict[str, int]) -> None:
    """Undo everything of a machine whose leader has ended, and forget it.

    Args:
        name: of the machine.
        lock: descriptor of its lock.
        kept: the descriptors that we hold by their slots: the root's lock, and what is held
            over reboots; negative if there is none.
    """
    try:
        state = read_state(name)
        cgroupfs.remove(f"{state.cgroup}/payload", timeout=10)
    except FileNotFoundError:
        pass
    slots: dict[str, int | str] = {slot: fd for slot, fd in kept.items() if fd >= 0}
    with Changes(name):
        try:
            undo_journal(name, make_hooks(), slots)
        except PymachineError as error:
            # Kept for the next verb, which finds the lock free and tries again.
            os.write(2, f"pymachine: {error.message}\n".encode())
            os._exit(1)
        remove_state(name)
    drop_lock(lock_path(name), lock)


def _reboot(told: dict[str, Any]) -> int:
    """Build the machine again from its spec; returns only if that fails."""
    from machinectl_py.runtime import again, detach

    for fd in (told["lock"], told["root-lock"], told["launcher"], *told["held"].values()):
        if fd >= 0:
            os.set_inheritable(fd, False)
    kept = {"lock": told["lock"], "root-lock": told["root-lock"], **told["held"]}
    with Changes(told["name"]):
        spec, facts = read_spec(read_state(told["name"])), read_facts(told["name"])
        build = again.prepare_again(spec, facts, kept)
    try:
        again.build_again(build)
        if told["launcher"] >= 0:
            import _socket

            build.walk.peers["launcher"] = Peer(_socket.socket(fileno=told["launcher"]))
        detach.watch(build, log=told["log"])
    except (PymachineError, OSError, Aborted) as error:
        build.kill()
        failed = failure_data(error)
        text = failed.get("message") or f"Failed to {failed['act']}: {failed['cause']}"
        os.write(2, f"pymachine: {text}\n".encode())
    return 1
