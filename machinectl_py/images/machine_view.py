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


def open_layers(machine: Machine, layers: tuple[str, ...]) -> MachineView:
    """Return a view of a machine's snapshot or origin."""
    return _open(machine, layers)


def _open(machine: Machine, layers: tuple[str, ...]) -> MachineView:
    from machinectl_py.kernel.overlay import mount_layers

    if machine.driver != "overlay":
        return MachineView(root_of(machine.driver, machine.base, layers[0] if layers else ""))
    if not layers:
        return MachineView(machine.base)
    lower = (*map(upper_of, layers), machine.base)
    mount = mount_layers(lower, attributes=_LOOK)
    return MachineView(f"/proc/self/fd/{mount}", mount)


def open_writable(machine: Machine) -> MachineView:
    """Return a view of a new machine in which its own layer is written to."""
    from machinectl_py.kernel.overlay import mount_layers

    if machine.driver != "overlay":
        return MachineView(root_of(machine.driver, machine.base, machine.own))
    lower = (*map(upper_of, machine.layers), machine.base)
    attributes = _LOOK & ~const.MOUNT_ATTR_RDONLY
    mount = mount_layers(lower, layer_path(machine.own), attributes=attributes)
    return MachineView(f"/proc/self/fd/{mount}", mount)
