"""What can go wrong, as the user is told it; and the exit codes.

Every error is one line: what was wrong, with which subject; `hint` is a second line that says
what to do. `kernel/` raises plain `OSError`; the layers above turn it into one of these; only
`cli/main.py` prints them.
"""

from __future__ import annotations

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
EXIT_REBOOT = 133  # asks the unit to start us again: RestartForceExitStatus=133


class PymachineError(Exception):
    """An error with a line for the user and, perhaps, a remedy."""

    exit_status = EXIT_FAILURE

    def __init__(self, message: str, hint: str = "") -> None:
        """Hold the line, and the remedy ("" if there is none)."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PymachineError):
    """The command line cannot be understood."""

    exit_status = EXIT_USAGE


class ConfigError(PymachineError):
    """A value that was given is not valid."""


class NotFoundError(PymachineError):
    """There is no such machine, image or file."""


class ConflictError(PymachineError):
    """The subject is in another state: it runs already, is in use, exists already."""


class UnsupportedError(PymachineError):
    """This host, kernel or cgroup manager cannot do it."""


class DeniedError(PymachineError):
    """The caller may not do it."""


class StepError(PymachineError):
    """A step of a plan failed; survives the pipe between processes as data."""

    def __init__(  # noqa: D107 - the fields are those of to_data
        self, *, step: str, index: int, total: int, place: str, act: str, cause: str, errno: int
    ) -> None:
        super().__init__(f"Failed to {act}: {cause} (step {index} of {total}, {place})")
        self.step, self.index, self.total, self.place = step, index, total, place
        self.act, self.cause, self.errno = act, cause, errno

    def to_data(self) -> dict[str, str | int]:
        """Return the fields, for the channel between the processes."""
        names = ("step", "index", "total", "place", "act", "cause", "errno")
        return {name: getattr(self, name) for name in names}
