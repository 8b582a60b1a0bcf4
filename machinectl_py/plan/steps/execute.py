"""The last step: the init wrapper becomes the payload."""

from __future__ import annotations

import _signal
import os

from machinectl_py.config.spec import Payload
from machinectl_py.kernel import process
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from machinectl_py.plan.context import Context


class ExecutePayload(Step):
    """Execute the init or the command as PID 1, or with a stub init as PID 2."""

    name = "execute-payload"
    man = "execve(2)"
    because = "the init wrapper has nothing more to do"
    takes = ("controllers",)

    payload: Payload
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    listen_fds: int = 0  # descriptors from 3 that it gets from our caller

    def describe(self) -> str:
        """Return the act."""
        pid = "PID 2, under a stub init" if self.payload.kind == "as-pid2" else "PID 1"
        return f"execute {' '.join(self.argv)} as {pid}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"exec {' '.join(self.argv)}"

    def apply(self, context: Context) -> None:
        """Execute it; returns by an error only."""
        if self.payload.working_directory:
            os.chdir(self.payload.working_directory)
        process.close_range(3 + self.listen_fds, on_exec=True)
        process.reset_signals()  # what is ignored or blocked stays so over execve(2)
        if self.payload.kind == "as-pid2":
            self._under_stub()
        self._execute()

    def _execute(self) -> NoReturn:
        environment = dict(self.environment)
        program = self.argv[0]
        if "/" in program:
            os.execve(program, list(self.argv), environment)
        denied: OSError | None = None
        for directory in environment.get("PATH", "/usr/bin:/bin").split(":"):
            try:
                os.execve(f"{directory}/{program}", list(self.argv), environment)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except PermissionError as error:
                denied = error
        raise denied or FileNotFoundError(2, "No such file or directory", program)

    def _under_stub(self) -> None:
        """Fork: the child goes on to execute, this process stays as the init."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        pid = os.fork()
        if pid:
            process.close_range(3)
            process.set_name("(stub-init)")
            _be_init(pid)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        os.setsid()
        if os.isatty(0):
            import fcntl

            from machinectl_py.kernel.const import TIOCSCTTY

            fcntl.ioctl(0, TIOCSCTTY, 1)


def _be_init(payload: int) -> NoReturn:
    """Reap whatever ends, pass signals on, and leave with the payload's exit status."""
    while True:
        number = _signal.sigwait(_signal.valid_signals())
        if number != _signal.SIGCHLD:
            os.kill(payload, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(1)
            if not pid:
                break
            if pid == payload:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
