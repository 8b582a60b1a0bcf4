"""The last steps: the init wrapper becomes the payload."""

from __future__ import annotations

import os

from machinectl_py.config.spec import Payload
from machinectl_py.kernel import process
from machinectl_py.kernel.terminal import set_controlling_terminal
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.stub_init import fork_payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from machinectl_py.plan.context import Context

_USER_SLOTS = ("user-name", "user-home")
# What clients inside look up in /proc/1/environ; systemd's "Container Interface".
_STUB_VARIABLES = ("container", "container_uuid")


class ChangeDirectory(Step):
    """Change to the directory that the payload starts in."""

    name = "change-directory"
    man = "chdir(2)"
    because = "by the payload's user and privileges, which may not reach what root does"

    path: str

    def describe(self) -> str:
        """Return the act."""
        return f"change to directory {self.path}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"cd {self.path}"

    def apply(self, context: Context) -> None:
        """Change to it."""
        os.chdir(self.path)


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
    is_registered: bool = False  # waits until it is: a command may do its work in no time

    def describe(self) -> str:
        """Return the act."""
        pid = "PID 2, under a stub init" if self.payload.kind == "as-pid2" else "PID 1"
        return f"execute {' '.join(self.argv) or 'a login shell'} as {pid}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"exec {' '.join(self.argv) or 'bash --login'}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots of the user too, if it is to be another than root."""
        registered = ("registered",) if self.is_registered else ()
        return (*self.takes, *registered, *(_USER_SLOTS if self.payload.user else ()))

    def apply(self, context: Context) -> None:
        """Execute it; returns by an error only."""
        environment = self._environment(context)
        if not self.argv and not self.payload.working_directory:
            _enter_home(environment)
        process.close_range(3 + self.listen_fds, on_exec=True)
        process.reset_signals()  # what is ignored or blocked stays so over execve(2)
        if self.payload.kind == "as-pid2":
            fork_payload({name: environment[name] for name in _STUB_VARIABLES})
            if os.isatty(0):
                set_controlling_terminal(0)
        if not self.argv:
            _execute_shell(environment)
        _execute(self.argv, environment)

    def _environment(self, context: Context) -> dict[str, str]:
        """Return the variables: ours, those of the user, and above them what was asked for."""
        found = dict(self.environment)
        if self.payload.user:
            name, home = (context.text(slot) for slot in _USER_SLOTS)
            found |= {"HOME": home, "USER": name, "LOGNAME": name}
        return found | dict(self.payload.environment)


def _execute(argv: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    program = argv[0]
    if "/" in program:
        os.execve(program, list(argv), environment)
    denied: OSError | None = None
    for directory in environment.get("PATH", "/usr/bin:/bin").split(":"):
        try:
            os.execve(f"{directory}/{program}", list(argv), environment)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(2, "No such file or directory", program)


def _execute_shell(environment: dict[str, str]) -> NoReturn:
    """Execute a login shell: bash, or sh where there is none."""
    try:
        os.execve("/bin/bash", ["-bash"], environment)
    except OSError:
        os.execve("/bin/sh", ["-sh"], environment)


def _enter_home(environment: dict[str, str]) -> None:
    try:
        os.chdir(environment.get("HOME", "/"))
    except OSError:  # a login shell starts at / then
        pass
