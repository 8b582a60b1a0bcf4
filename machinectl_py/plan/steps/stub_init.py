"""The init of a machine whose payload is PID 2, with the signals of systemd(1)."""

from __future__ import annotations

import _signal
import os
import time

from machinectl_py.kernel import const, own_area, process
from machinectl_py.kernel.process import power_off, restart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PATIENCE = 90.0  # seconds between the request and the end, systemd's DefaultTimeoutStopSec=
_EXIT_EXCEPTION = 255  # it did not end in time; systemd.exec(5), "Process Exit Codes"
_NAME = "(sd-stubinit)"
# halt, poweroff; and their forced kin, which cannot be more forceful here
_POWEROFF = frozenset(const.SIGRTMIN + number for number in (3, 4, 13, 14))
# Ctrl-Alt-Del; reboot, kexec
_REBOOT = frozenset({const.SIGINT, *(const.SIGRTMIN + number for number in (5, 6, 15, 16))})


def fork_payload(environment: dict[str, str]) -> None:
    """Fork: the child, leader of a session, returns; this process stays as the init.

    Args:
        environment: what /proc/1/environ is to show.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    ready, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.dup2(tell, 3, inheritable=False)
        process.close_range(4)
        tell = 3
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGHUP, _signal.SIGTERM):
            _signal.signal(number, _signal.SIG_DFL)
        os.chdir("/")
        own_area.replace_command_and_environment(_NAME, environment)
        process.set_name(_NAME)
        os.close(tell)
        _be_init(pid)
    os.close(tell)
    os.read(ready, 1)  # its end: what the payload sees of PID 1 is the stub as it stays
    os.close(ready)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.setsid()


def _be_init(payload: int) -> NoReturn:
    """Reap whatever ends, obey requests to stop, and leave with the payload's exit status.

    SIGTERM and SIGHUP mean "execute again" and "reload" to an init, which this one cannot.
    """
    awaited = {_signal.SIGCHLD} | _POWEROFF | _REBOOT
    asked = 0
    deadline = 0.0
    while True:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == payload:
                _leave(asked, status)
            if not pid:
                break
        number = _next_signal(awaited, deadline)
        if number < 0:
            _leave(asked, None)
        if number == _signal.SIGCHLD or asked:
            continue
        asked, deadline = number, time.monotonic() + _PATIENCE
        # SIGHUP too, since shells ignore SIGTERM; after it, for those that reload by SIGHUP.
        for one in (_signal.SIGTERM, _signal.SIGCONT, _signal.SIGHUP):
            os.kill(payload, one)  # not reaped yet, so it is that very process


def _next_signal(awaited: set[int], deadline: float) -> int:
    """Return the next signal; -1 once the deadline, if there is one, has passed."""
    if not deadline:
        return int(_signal.sigwaitinfo(awaited).si_signo)
    left = deadline - time.monotonic()
    found = _signal.sigtimedwait(awaited, max(left, 0))
    return int(found.si_signo) if found else -1


def _leave(asked: int, status: int | None) -> NoReturn:
    """End as asked, else with the payload's exit status, 128+n for signal n.

    Args:
        asked: the signal that asked for the end, or 0.
        status: of the payload, as wait(2) has it; None if it did not end in time.
    """
    try:
        if asked in _REBOOT:
            restart()
        elif asked:
            power_off()
    except OSError:  # without CAP_SYS_BOOT it just ends, and a reboot has failed
        if asked in _REBOOT:
            os._exit(1)
    if status is None:
        os._exit(_EXIT_EXCEPTION)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)
