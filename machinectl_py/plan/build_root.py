"""What the root of a machine is made of; docs/design/mounts.md.

Pure functions of spec and facts, each for one place in the order that `build.py` makes.
"""

from __future__ import annotations

from machinectl_py.config.spec import BindMount, OverlayMount, TmpfsMount
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.layout import machine_dir, record_path
from machinectl_py.plan.build_mounts import custom, layer_of, parts, place_inside, target_of
from machinectl_py.plan.steps import api, compose_root, ephemeral, host, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.build_mounts import Custom
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step


def check_root(spec: MachineSpec, facts: HostFacts) -> None:
    """Refuse a root that cannot be made so.

    Raises:
        ConfigError: the spec contradicts itself, or the root has no merged /usr.
        UnsupportedError: it is the host's, or a disk image, whose root is its own.
    """
    rootfs = spec.rootfs
    if spec.root == "/":
        raise UnsupportedError(
            "The host's own root cannot be a machine's, nor can a snapshot of it",
            "--directory= or --machine= gives another.",
        )
    if rootfs.volatile == "yes" and facts.mounts.split_usr:
        raise ConfigError(
            f"{spec.root}/bin is no link into /usr, which alone is kept of a volatile root",
            "--volatile=overlay works with such trees.",
        )
    if rootfs.pivot_old and not rootfs.pivot_new:
        raise ConfigError("There is a place for the old root, but no new one")
    for path in filter(None, (rootfs.pivot_new, rootfs.pivot_old)):
        if not path.startswith("/") or not parts(path):
            raise ConfigError(f"'{path}' is no absolute path of a directory inside")
    if rootfs.image and rootfs.pivot_new:
        raise UnsupportedError("The root of a disk image is its own: --pivot-root= is for trees")


def _overlays(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether the machine is ephemeral by an overlay whose layer is in memory."""
    kept = facts.mounts.snapshot or facts.mounts.layer
    return spec.rootfs.ephemeral and not kept and not spec.rootfs.image


def prepare(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the launcher's steps: the lock of the root, and the place of an ephemeral one."""
    if not spec.rootfs.transient:
        return _take_root(spec, facts)
    layer = spec.rootfs.layer or spec.root.rpartition("/")[0]
    own = ephemeral.OwnMachine(record=record_path(spec.name), layer=layer)
    return (own, *_take_root(spec, facts))


def _take_root(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    if spec.rootfs.ephemeral and facts.mounts.snapshot:
        snapshot = facts.mounts.snapshot
        return (
            ephemeral.LockSnapshot(snapshot=snapshot),
            ephemeral.SnapshotRoot(root=spec.root, snapshot=snapshot),
        )
    layer = layer_of(spec, facts)
    lock = host.LockRoot(
        root=spec.root,
        device=facts.root_device,
        inode=facts.root_inode,
        shared=bool(spec.read_only or layer)
        or _overlays(spec, facts)
        or _cover(spec, facts) is not None,
    )
    if layer and layer != spec.rootfs.layer:
        return (lock, ephemeral.MakeLayer(root=spec.root, layer=layer))
    return (lock,)


def compose(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that cover the root's place before the custom mounts are cloned."""
    place, rootfs = place_inside(spec, facts), spec.rootfs
    scratch = machine_dir(spec.name)
    steps: list[Step] = []
    if _overlays(spec, facts):
        steps.append(compose_root.OverlayRoot(root=place, scratch=scratch))
    if rootfs.pivot_new:
        steps.append(
            compose_root.EnterDirectory(root=place, new=rootfs.pivot_new, old=rootfs.pivot_old)
        )
    if rootfs.volatile == "yes":
        steps.append(compose_root.MakeVolatileRoot(root=place))
    elif rootfs.volatile == "overlay":
        steps.append(compose_root.OverlayRoot(root=place, scratch=scratch))
    return tuple(steps)


def _cover(spec: MachineSpec, facts: HostFacts) -> Custom | None:
    """Return the custom mount on the root itself."""
    return next((m for m in custom(spec, facts) if not parts(target_of(m))), None)


def cover(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step that mounts what the user wants on the root itself."""
    mount, place = _cover(spec, facts), place_inside(spec, facts)
    if isinstance(mount, TmpfsMount):
        return (compose_root.CoverRootWithTmpfs(root=place, options=mount.options),)
    if isinstance(mount, OverlayMount):
        return (compose_root.CoverRoot(root=place, source="overlay"),)
    if isinstance(mount, BindMount):
        source = mount.source or "a temporary directory"
        return (compose_root.CoverRoot(root=place, source=source, read_only=mount.read_only),)
    return ()


def finish(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps after the pivot, before anything is mounted in the root."""
    steps: list[Step] = [compose_root.FillBaseTree()]
    wished = spec.rootfs.read_only and spec.rootfs.volatile == "no"
    if spec.rootfs.volatile == "state" or (wished and not _cover(spec, facts)):
        steps.append(root.RemountReadOnly(target="/", recursive=True))
    if spec.rootfs.volatile == "state":
        steps.append(
            api.MountFileSystem(
                fstype="tmpfs",
                target="/var",
                flags=const.MS_STRICTATIME,
                data=compose_root.VOLATILE_STATE,
            )
        )
    return tuple(steps)
