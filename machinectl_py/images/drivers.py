"""How layers are made in time and space that do not depend on their size; store.md.

Each function is called with the store's lock held. A layer that no record names yet is removed
by whoever finds it, so a kill leaves nothing that lasts.
"""

from __future__ import annotations

import os

from machinectl_py.errors import UnsupportedError
from machinectl_py.images.records import new_layer
from machinectl_py.images.root_attributes import give_attributes, root_attributes
from machinectl_py.kernel.statfs import UPPER_LAYERS, filesystem_magic, is_subvolume
from machinectl_py.layout import LAYERS_DIR, layer_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from machinectl_py.images.records import DriverName, Machine

    class Driver(Protocol):
        """What a way to share content can do."""

        def fill(self, base: str, layers: tuple[str, ...]) -> str:
            """Return a new layer to write to, whose content is `layers` on `base`."""

        def freeze(self, machine: Machine) -> tuple[Machine, tuple[str, ...]]:
            """Return what the machine, which does not run, becomes, and what it is now for ever."""


def root_of(driver: DriverName, base: str, layer: str) -> str:
    """Return the root of a machine on the host: with overlays that of its image."""
    if driver == "btrfs":
        return f"{layer_path(layer)}/tree" if layer else base
    if driver == "reflink":
        return f"{layer_path(layer)}/disk.raw" if layer else base
    return base


def upper_of(layer: str) -> str:
    """Return the directory with what was written to a layer of an overlay."""
    return f"{layer_path(layer)}/upper"


def root_values(machine: Machine) -> dict[str, Any]:
    """Return what the settings of a machine say of its root; fields of `RootSpec`."""
    values: dict[str, Any] = {"driver": machine.driver, "made_from": machine.image}
    if machine.driver == "overlay":
        values["layers"] = tuple(map(upper_of, machine.layers))
        values["layer"] = layer_path(machine.own)
    if machine.read_only:
        values["read_only"] = True
    if machine.ephemeral:  # as it is itself, no more is to be made so
        values |= {"ephemeral": False, "transient": True}
    return values


def driver_of(name: DriverName) -> Driver:
    """Return a driver by its name."""
    return _DRIVERS[name]


def fill_new(base: str) -> tuple[DriverName, str]:
    """Return the driver that fits an image, and a new layer of it.

    Args:
        base: absolute path of a directory or `.raw` file.

    Raises:
        UnsupportedError: the file system of the store can hold no layers.
        OSError: with the path.
    """
    if os.path.isdir(base) and is_subvolume(base):
        from machinectl_py.kernel import btrfs

        try:
            return "btrfs", _Btrfs().fill(base, ())
        except OSError as error:
            if error.errno not in btrfs.NO_SNAPSHOT:
                raise
    elif os.path.isfile(base):
        from machinectl_py.kernel.reflink import NOT_SHARED

        try:
            return "reflink", _Reflink().fill(base, ())
        except OSError as error:
            if error.errno not in NOT_SHARED:
                raise
        _refuse_partitions(base)
    # Where there are layers, it has been seen before.
    if not os.listdir(LAYERS_DIR) and filesystem_magic(LAYERS_DIR) not in UPPER_LAYERS:
        raise UnsupportedError(
            f"The file system of {LAYERS_DIR} can hold no layers of an overlay",
            "ext4, xfs, btrfs and tmpfs can, an overlay or a network's cannot.",
        )
    return "overlay", _Overlay().fill(base, ())


def _refuse_partitions(base: str) -> None:
    """Refuse a disk image whose parts cannot all be written over: layers lie on one file system.

    Raises:
        UnsupportedError: it has more than a root that a machine writes to.
    """
    from machinectl_py.images.dissect import dissect

    fd = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk = dissect(fd)
    finally:
        os.close(fd)
    others = [
        part.designator
        for part in disk.partitions
        if part.fstype and part.designator not in ("root", "xbootldr", "esp")
    ]
    if others or disk.find("root") is None:
        raise UnsupportedError(
            f"{base} has file systems of its own for {', '.join(others)}, over which no layers can"
            " be laid",
            "On a file system that shares extents, as btrfs and xfs do, it can be.",
        )


def is_unwritten(machine: Machine) -> bool:
    """Say whether a machine on an overlay has changed nothing, its root's own attributes too."""
    upper = upper_of(machine.own)
    below = upper_of(machine.layers[0]) if machine.layers else machine.base
    return not os.listdir(upper) and root_attributes(upper) == root_attributes(below)


class _Overlay:
    """Directories over one another; the only driver whose layers are not whole."""

    def fill(self, base: str, layers: tuple[str, ...]) -> str:
        layer = new_layer()
        path = layer_path(layer)
        os.mkdir(f"{path}/work", 0o755)
        os.mkdir(f"{path}/upper", 0o755)
        give_attributes(f"{path}/upper", root_attributes(upper_of(layers[0]) if layers else base))
        return layer

    def freeze(self, machine: Machine) -> tuple[Machine, tuple[str, ...]]:
        if is_unwritten(machine):  # no layer more
            return machine, machine.layers
        frozen = (machine.own, *machine.layers)
        own = self.fill(machine.base, frozen)
        return machine.replace(own=own, layers=frozen), frozen


class _Btrfs:
    """Snapshots of a subvolume."""

    def fill(self, base: str, layers: tuple[str, ...]) -> str:
        return self._snapshot(root_of("btrfs", base, layers[0] if layers else ""))

    def freeze(self, machine: Machine) -> tuple[Machine, tuple[str, ...]]:
        return machine, (self._snapshot(root_of("btrfs", machine.base, machine.own)),)

    def _snapshot(self, source: str) -> str:
        from machinectl_py.kernel import btrfs

        layer = new_layer()
        try:
            btrfs.snapshot(source, f"{layer_path(layer)}/tree")
        except OSError:
            _drop_empty(layer)
            raise
        return layer


class _Reflink:
    """Files that share their extents."""

    def fill(self, base: str, layers: tuple[str, ...]) -> str:
        return self._clone(root_of("reflink", base, layers[0] if layers else ""))

    def freeze(self, machine: Machine) -> tuple[Machine, tuple[str, ...]]:
        return machine, (self._clone(root_of("reflink", machine.base, machine.own)),)

    def _clone(self, source: str) -> str:
        from machinectl_py.kernel.reflink import clone_file

        layer = new_layer()
        try:
            clone_file(source, f"{layer_path(layer)}/disk.raw")
        except OSError:
            _drop_empty(layer)
            raise
        return layer


def _drop_empty(layer: str) -> None:
    """Remove a layer that nothing came into; what is more than that is left to `fsck`."""
    try:
        os.rmdir(layer_path(layer))
    except OSError:
        pass


_DRIVERS: dict[str, Driver] = {"overlay": _Overlay(), "btrfs": _Btrfs(), "reflink": _Reflink()}
