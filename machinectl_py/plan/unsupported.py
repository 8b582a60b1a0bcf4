"""What a spec can say and no step does yet: refused before anything is touched."""

from __future__ import annotations

import os

from machinectl_py.config.spec import BindMount, InaccessibleMount, OverlayMount
from machinectl_py.errors import NotFoundError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec


def check_supported(spec: MachineSpec) -> None:
    """Refuse what no step does.

    Raises:
        UnsupportedError: the setting, by the name of its option.
        NotFoundError: the source of a bind mount is missing.
    """
    for is_wanted, what in (*_of_the_root(spec), *_of_the_rest(spec)):
        if is_wanted:
            raise UnsupportedError(f"{what} is not supported yet")
    for mount in spec.mounts:
        if isinstance(mount, BindMount):
            _check_bind(mount)
        elif isinstance(mount, OverlayMount | InaccessibleMount):
            raise UnsupportedError("--overlay= and --inaccessible= are not supported yet")


def _of_the_root(spec: MachineSpec) -> tuple[tuple[object, str], ...]:
    rootfs = spec.rootfs
    return (
        (rootfs.image, "A root from a disk image (--image=)"),
        (rootfs.image_policy, "--image-policy="),
        (rootfs.root_hash or rootfs.root_hash_signature or rootfs.verity_data, "--root-hash="),
        (rootfs.template, "--template="),
        (rootfs.ephemeral, "--ephemeral"),
        (rootfs.volatile != "no", "--volatile="),
        (rootfs.pivot_new, "--pivot-root="),
        (not spec.tmpfs_tmp, "$SYSTEMD_NSPAWN_TMPFS_TMP=0"),
        (spec.api_writable_network, "$SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"),
    )


def _of_the_rest(spec: MachineSpec) -> tuple[tuple[object, str], ...]:
    network = spec.network
    return (
        (network.kind == "path", "--network-namespace-path="),
        (network.veth or network.veth_extra, "--network-veth"),
        (network.interfaces, "--network-interface="),
        (network.macvlan or network.ipvlan, "--network-macvlan="),
        (network.ports, "--port="),
    )


def _check_bind(mount: BindMount) -> None:
    if mount.source in ("", "+") or mount.source.startswith("+"):
        raise UnsupportedError("A bind mount from inside the root, or of nothing, is not supported")
    if mount.idmap != "noidmap":
        raise UnsupportedError(f"The option {mount.idmap} of a bind mount is not supported yet")
    if mount.optional:
        raise UnsupportedError("An optional bind mount is not supported yet")
    if not os.path.exists(mount.source):
        raise NotFoundError(f"There is no {mount.source} on this host to be bound")
