"""A machine that stands still for a moment; Documentation/admin-guide/cgroup-v2.rst, freezer."""

from __future__ import annotations

import os

from machinectl_py.errors import DeniedError, PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.kernel.procfs import mountinfo
from machinectl_py.kernel.writeback import sync_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from machinectl_py.runtime.state import MachineState

_ON_DISKS = ("ext4", "xfs", "btrfs", "f2fs", "vfat")  # of a fuse's, who serves it may be frozen
_TIMEOUT = 10.0  # seconds; a process can be in an uninterruptible call


class Frozen:
    """Holds a machine's processes while it is entered.

    A second process lets them go on when we are killed: a machine may not stay frozen.
    """

    def __init__(self, state: MachineState) -> None:
        """Mean this machine."""
        self._name, self._leader = state.name, state.leader
        self._cgroup = f"{state.cgroup}/payload"

    def __enter__(self) -> Self:
        """Freeze it, with all that it has written on the disk.

        Raises:
            UnsupportedError: the kernel has no freezer.
            PymachineError: a process cannot be frozen; all go on.
        """
        self._stood = cgroupfs.is_frozen(self._cgroup)  # by its user's wish, and stays so
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
            raise _did_not_freeze(self._name)
        try:
            self._write_out()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _write_out(self) -> None:
        """Write what the kernel holds of its file systems to the image they are on; syncfs(2)."""
        root = os.open(f"/proc/{self._leader}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for mount in mountinfo(self._leader):
                if mount.fstype not in _ON_DISKS:
                    continue
                fd = open_in_root(root, mount.target, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    sync_filesystem(fd, mount.target)
                finally:
                    os.close(fd)
        finally:
            os.close(root)

    def __exit__(self, *_error: object) -> None:
        """Let it go on, and wait until it does."""
        os.close(self._alive)
        os.waitpid(self._guard, 0)

    def _thaw_at_end_of(self, pipe: int) -> None:
        try:
            os.close(self._alive)
            os.setsid()  # apart from what Ctrl-C goes to
            os.read(pipe, 1)
            if not self._stood:
                cgroupfs.thaw(self._cgroup)
        finally:
            os._exit(0)


def freeze_machine(state: MachineState) -> None:
    """Have a machine stand still until it is thawed, or ended.

    Raises:
        DeniedError: the caller is not root.
        UnsupportedError: the kernel has no freezer.
        PymachineError: a process cannot be frozen; all go on.
    """
    cgroup = _payload_of(state)
    try:
        stands = cgroupfs.freeze(cgroup, _TIMEOUT)
    except OSError as error:
        raise UnsupportedError(
            f"Machine '{state.name}' cannot be frozen: {error.strerror}"
        ) from error
    if not stands:
        cgroupfs.thaw(cgroup)
        raise _did_not_freeze(state.name)


def thaw_machine(state: MachineState) -> None:
    """Have a machine go on; nothing if it does.

    Raises:
        DeniedError: the caller is not root.
    """
    cgroupfs.thaw(_payload_of(state))


def _payload_of(state: MachineState) -> str:
    if os.geteuid():
        raise DeniedError("Only root may freeze and thaw machines", "Try again with sudo.")
    return f"{state.cgroup}/payload"


def _did_not_freeze(name: str) -> PymachineError:
    return PymachineError(f"Machine '{name}' did not freeze within {_TIMEOUT:.0f} s")
