"""What the custom mounts of a machine find on this host, probed before planning."""

from __future__ import annotations

import os

from machinectl_py.config.spec import BindMount, OverlayMount
from machinectl_py.kernel.procfs import mountinfo
from machinectl_py.kernel.statfs import UPPER_LAYERS, filesystem_magic, is_subvolume
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.config.spec import MachineSpec


class MountFacts(Record):
    """The host as far as mounts depend on it."""

    token: str = ""  # random: a part of the names of what is made for this machine alone
    missing: tuple[str, ...] = ()  # sources of the spec that this host does not have
    files: tuple[str, ...] = ()  # those that are no directories
    split_usr: bool = False  # the root's /bin is no link into /usr
    snapshot: str = ""  # an ephemeral machine's root will be this; "" where none can be taken
    layer: str = ""  # a directory to be made for what it writes; "" keeps that in memory


def probe_mounts(spec: MachineSpec, tree: str = "") -> MountFacts:
    """Look at what the mounts of a spec want to show.

    Args:
        spec: of the machine.
        tree: a path by which what is in the root is seen, if that is not the root itself.
    """
    sources = {path for path in _host_paths(spec) if path and not path.startswith("+")}
    missing = tuple(sorted(path for path in sources if not os.path.exists(path)))
    files = {path for path in sources if not os.path.isdir(path)}
    token = os.urandom(8).hex()
    snapshot = layer = ""
    if spec.rootfs.ephemeral and not spec.rootfs.image:
        snapshot = _snapshot(spec.root, token)
        layer = "" if snapshot else _layer(spec.root, token)
    binaries = f"{tree or spec.root}{spec.rootfs.pivot_new}/bin"
    return MountFacts(
        token=token,
        missing=missing,
        files=tuple(sorted(files.difference(missing))),
        split_usr=os.path.isdir(binaries) and not os.path.islink(binaries),
        snapshot=snapshot,
        layer=layer,
    )


def _snapshot(root: str, token: str) -> str:
    """Return where systemd-nspawn would take a snapshot; "" if the root is no subvolume."""
    if not is_subvolume(root):
        return ""
    # os.path.ismount takes each subvolume for one.
    if any(mount.target == root for mount in mountinfo("self")):
        return f"{root}/.#machine.{token}"
    return f"{os.path.dirname(root)}/.#machine.{os.path.basename(root)}{token}"


def _layer(root: str, token: str) -> str:
    """Return a directory that can hold a layer to write to: beside the root, if possible."""
    name = f".#machine.{os.path.basename(root)}{token}"
    for place in (os.path.dirname(root), "/var/lib/machines", "/var/tmp"):
        if os.access(place, os.W_OK) and filesystem_magic(place) in UPPER_LAYERS:
            return f"{place.rstrip('/')}/{name}"
    return ""


def _host_paths(spec: MachineSpec) -> Iterable[str]:
    for mount in spec.mounts:
        if isinstance(mount, BindMount):
            yield mount.source
        elif isinstance(mount, OverlayMount):
            yield from (*mount.lower, mount.upper)
