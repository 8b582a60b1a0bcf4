"""Looking into machines that do not run, and writing to those that are being made."""

from __future__ import annotations

import os

from machinectl_py.images.drivers import root_of, upper_of
from machinectl_py.kernel import const
from machinectl_py.layout import layer_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.records import Machine

_LOOK = (
    const.MOUNT_ATTR_RDONLY
    | const.MOUNT_ATTR_NODEV
    | const.MOUNT_ATTR_NOSUID
    | const.MOUNT_ATTR_NOEXEC
)


class MachineView:
    """A root as a path that this process alone sees; closed, nothing is left of it."""

    def __init__(self, path: str, mount: int = -1) -> None:
        """See it at `path`, by way of a detached mount unless that is -1."""
        self.path, self._mount = path, mount

    def __enter__(self) -> str:
        """Return the path."""
        return self.path

    def __exit__(self, *_error: object) -> None:
        """Let it go."""
        if self._mount >= 0:
            os.close(self._mount)


def open_machine(machine: Machine) -> MachineView:
    """Return a view of what a machine, which does not run, is now."""
    return _open(machine, (machine.own, *machine.layers))


def open_layers(machine: Machine, layers: tuple[str, ...], *, above: str = "") -> MachineView:
    """Return a view of a machine's snapshot or origin; of an overlay, with a directory above."""
    return _open(machine, layers, above)


def _open(machine: Machine, layers: tuple[str, ...], above: str = "") -> MachineView:
    if machine.driver != "overlay":
        root = root_of(machine.driver, machine.base, layers[0] if layers else "")
        return MachineView(root) if os.path.isdir(root) else _by(open_disk(root))
    lowest = _lowest(machine.base)
    uppers = (*((above,) if above else ()), *map(upper_of, layers))
    if not uppers:
        return MachineView(lowest) if isinstance(lowest, str) else _by(lowest)
    try:
        return _by(mount_view((*uppers, lowest)))
    finally:
        _let_go(lowest)


def _by(mount: int) -> MachineView:
    return MachineView(f"/proc/self/fd/{mount}", mount)


def _lowest(base: str) -> str | int:
    """Return a directory, or of a disk image a detached mount of its root."""
    return base if os.path.isdir(base) else open_disk(base)


def _let_go(lowest: str | int) -> None:
    if isinstance(lowest, int):
        os.close(lowest)


def open_disk(path: str, *, writable: bool = False) -> int:
    """Return a detached mount of the root of a disk image.

    Raises:
        PymachineError: there is none, or it cannot be mounted.
    """
    from machinectl_py.images.dissect import dissect
    from machinectl_py.images.view import open_view

    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        return open_view(fd, dissect(fd), writable=writable).tree
    finally:
        os.close(fd)


def open_directory(path: str) -> MachineView:
    """Return a view of an image, a directory or a disk."""
    return MachineView(path) if os.path.isdir(path) else _by(open_disk(path))


def mount_view(lower: tuple[str | int, ...]) -> int:
    """Return a detached mount of layers, the topmost first, to look into.

    Raises:
        OSError: as `mount_layers`.
    """
    from machinectl_py.kernel.overlay import mount_layers

    return mount_layers(lower, attributes=_LOOK)


def is_writable_disk(path: str) -> bool:
    """Say whether the root on a disk image can be written to, and nothing authenticates it.

    Raises:
        PymachineError: there is none.
    """
    from machinectl_py.images.dissect import dissect

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk = dissect(fd)
    finally:
        os.close(fd)
    root = disk.find("root")
    return root is not None and not root.read_only and not disk.protected


def open_writable(machine: Machine) -> MachineView:
    """Return a view of a new machine in which its own layer is written to."""
    from machinectl_py.kernel.overlay import mount_layers

    if machine.driver != "overlay":
        root = root_of(machine.driver, machine.base, machine.own)
        return MachineView(root) if os.path.isdir(root) else _by(open_disk(root, writable=True))
    lowest = _lowest(machine.base)
    try:
        lower = (*map(upper_of, machine.layers), lowest)
        attributes = _LOOK & ~const.MOUNT_ATTR_RDONLY
        return _by(mount_layers(lower, layer_path(machine.own), attributes=attributes))
    finally:
        _let_go(lowest)
