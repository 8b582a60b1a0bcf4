"""What the custom mounts of a machine find on this host, probed before planning."""

from __future__ import annotations

import os

from machinectl_py.config.spec import BindMount, OverlayMount
from machinectl_py.kernel.idmap import why_unmappable
from machinectl_py.kernel.procfs import mountinfo
from machinectl_py.kernel.statfs import UPPER_LAYERS, filesystem_magic, is_subvolume
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.config.spec import InaccessibleMount, MachineSpec, TmpfsMount

    AnyMount = BindMount | TmpfsMount | OverlayMount | InaccessibleMount


class MountFacts(Record):
    """The host as far as mounts depend on it."""

    token: str = ""  # random: a part of the names of what is made for this machine alone
    missing: tuple[str, ...] = ()  # sources of the spec that this host does not have
    files: tuple[str, ...] = ()  # those that are no directories
    split_usr: bool = False  # the root's /bin is no link into /usr
    unmappable: tuple[tuple[str, str], ...] = ()  # bind sources whose ids cannot be mapped, and why
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
        unmappable=tuple(_unmappable(spec, missing)),
        split_usr=os.path.isdir(binaries) and not os.path.islink(binaries),
        snapshot=snapshot,
        layer=layer,
    )


def _unmappable(spec: MachineSpec, missing: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    for mount in spec.mounts:
        if not isinstance(mount, BindMount) or mount.source in ("", *missing):
            continue
        asked = mount.idmap != "noidmap" and not mount.source.startswith("+")
        if asked and (why := why_unmappable(mount.source, recursive=mount.recursive)):
            yield mount.source, why


def maps_all(mounts: Iterable[AnyMount]) -> bool:
    """Say whether of all directories of the host that are to be mounted the ids can be mapped.

    Those that are missing are passed over, as planning refuses them.
    """
    return not any(
        os.path.exists(path) and why_unmappable(path, recursive=recursive)
        for mount in mounts
        for path, recursive in _mapped_paths(mount)
    )


def _mapped_paths(mount: AnyMount) -> Iterable[tuple[str, bool]]:
    """Yield the paths of the host that a mount shows, each with whether all below it is."""
    paths: list[tuple[str, bool]] = []
    if isinstance(mount, BindMount):
        paths = [(mount.source, mount.recursive)]
    elif isinstance(mount, OverlayMount):
        upper = mount.upper if mount.read_only else os.path.dirname(mount.upper)
        paths = [(path, False) for path in (*mount.lower, upper)]
    return ((path, whole) for path, whole in paths if path.startswith("/"))


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
