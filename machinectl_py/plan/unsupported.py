"""What a spec can say and no step does yet: refused before anything is touched."""

from __future__ import annotations

import os

from machinectl_py.config.spec import BindMount, InaccessibleMount, OverlayMount
from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError
from machinectl_py.kernel.namespaces import is_network_namespace
from machinectl_py.kernel.rtnl import index_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec, NetworkSpec


def check_supported(spec: MachineSpec) -> None:
    """Refuse what no step does.

    Raises:
        UnsupportedError: the setting, by the name of its option.
        NotFoundError: the source of a bind mount, or a link of the host, is missing.
        ConfigError: a path is of the wrong kind.
    """
    for is_wanted, what in (*_of_the_root(spec), *_of_the_rest(spec)):
        if is_wanted:
            raise UnsupportedError(f"{what} is not supported yet")
    _check_network(spec.network)
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
        (spec.users.mode != "no" or spec.users.ownership != "off", "--private-users="),
        (spec.users.delegate, "--private-users-delegate="),
    )


def _of_the_rest(spec: MachineSpec) -> tuple[tuple[object, str], ...]:
    network, seccomp = spec.network, spec.seccomp
    return (
        (network.ports, "--port="),
        (seccomp.profile, "--seccomp-profile="),
        (seccomp.suppress_sync, "--suppress-sync="),
        (seccomp.families, "--restrict-address-families="),
        (spec.labels.selinux or spec.labels.selinux_apifs, "--selinux-context="),
        (spec.labels.apparmor, "--apparmor-profile="),
        (spec.ambient, "--ambient-capability="),
        (spec.personality, "--personality="),
        (spec.cpu_affinity, "--cpu-affinity="),
        (spec.oom_score_adjust is not None, "--oom-score-adjust="),
    )


def _check_network(network: NetworkSpec) -> None:
    """Hold that there is what the machine will be connected with.

    But not the links that are moved: a machine that was killed may have them yet.
    """
    if network.kind == "path":
        path = network.namespace_path
        try:
            is_one = is_network_namespace(path)
        except OSError as error:
            raise NotFoundError(f"Cannot open {path}: {error.strerror}") from error
        if not is_one:
            raise ConfigError(f"{path} is no network namespace")
    parents = [pair.host for pair in (*network.macvlan, *network.ipvlan)]
    moved = [pair.host for pair in network.interfaces]
    for name in (network.bridge, *parents):
        if name and name not in moved and not index_of(name):
            raise NotFoundError(f"There is no link {name} on this host")


def _check_bind(mount: BindMount) -> None:
    if mount.source in ("", "+") or mount.source.startswith("+"):
        raise UnsupportedError("A bind mount from inside the root, or of nothing, is not supported")
    if mount.idmap != "noidmap":
        raise UnsupportedError(f"The option {mount.idmap} of a bind mount is not supported yet")
    if mount.optional:
        raise UnsupportedError("An optional bind mount is not supported yet")
    if not os.path.exists(mount.source):
        raise NotFoundError(f"There is no {mount.source} on this host to be bound")
