"""A machine that stands still for a moment; Documentation/admin-guide/cgroup-v2.rst, freezer."""

from __future__ import annotations

import os

from machinectl_py.errors import PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from machinectl_py.runtime.state import MachineState

_TIMEOUT = 10.0  # seconds; a process can be in an uninterruptible call


class Frozen:
    """Holds a machine's processes while it is entered.

    A second process lets them go on when we are killed: a machine may not stay frozen.
    """

    def __init__(self, state: MachineState) -> None:
        """Mean this machine."""
        self._name, self._cgroup = state.name, f"{state.cgroup}/payload"

    def __enter__(self) -> Self:
        """Freeze it.

        Raises:
            UnsupportedError: the kernel has no freezer.
            PymachineError: a process cannot be frozen; all go on.
        """
        ours, self._alive = os.pipe2(os.O_CLOEXEC)
        self._guard = os.fork()
        if self._guard == 0:
            self._thaw_at_end_of(ours)
        os.close(ours)
        try:
            stands = cgroupfs.freeze(self._cgroup, _TIMEOUT)
        except OSError as error:
            self.__exit__()
            raise UnsupportedError(
                f"Machine '{self._name}' cannot be frozen: {error.strerror}"
            ) from error
        if not stands:
            self.__exit__()
            raise PymachineError(f"Machine '{self._name}' did not freeze within {_TIMEOUT:.0f} s")
        return self

    def __exit__(self, *_error: object) -> None:
        """Let it go on, and wait until it does."""
        os.close(self._alive)
        os.waitpid(self._guard, 0)

    def _thaw_at_end_of(self, pipe: int) -> None:
        try:
            os.close(self._alive)
            os.setsid()  # apart from what Ctrl-C goes to
            os.read(pipe, 1)
            cgroupfs.thaw(self._cgroup)
        finally:
            os._exit(0)
