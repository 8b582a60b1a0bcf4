"""What the root of a machine is made of; docs/design/mounts.md.

Pure functions of spec and facts, each for one place in the order that `build.py` makes.
"""

from __future__ import annotations

from machinectl_py.config.spec import BindMount, OverlayMount, TmpfsMount
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.layout import machine_dir, record_path
from machinectl_py.plan import build_users
from machinectl_py.plan.build_mounts import (
    custom,
    layer_of,
    make,
    parts,
    place_inside,
    place_of,
    target_of,
)
from machinectl_py.plan.steps import api, base_tree, host, root
from machinectl_py.plan.users import plan_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.build_mounts import Custom
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

_VOLATILE_STATE = "mode=0755,size=25%,nr_inodes=1m"


def check_root(spec: MachineSpec, facts: HostFacts) -> None:
    """Refuse a root that cannot be made so.

    Raises:
        ConfigError: the spec contradicts itself, or the root has no merged /usr.
        UnsupportedError: it is the host's.
    """
    rootfs = spec.rootfs
    if spec.root == "/":
        raise UnsupportedError(
            "The host's own root cannot be a machine's, nor can a snapshot of it",
            "--directory= or --machine= gives another.",
        )
    if rootfs.ephemeral and rootfs.driver:
        raise UnsupportedError(
            f"Machine '{spec.name}' has a root of its own, and by its settings shall be ephemeral",
            "--ephemeral on the command line makes such a machine of it.",
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


def _overlays(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether the machine is ephemeral by an overlay whose layer is in memory."""
    kept = facts.mounts.snapshot or facts.mounts.layer
    return spec.rootfs.ephemeral and not kept and not spec.rootfs.image


def _only_reads(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether the machine writes nothing to the root that it is made of."""
    return spec.read_only or bool(layer_of(spec, facts)) or _cover(spec, facts) is not None


def prepare(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the launcher's steps: the lock of the root, and the place of an ephemeral one.

    Raises:
        UnsupportedError: the image cannot be used so, or not on this host.
    """
    if not spec.rootfs.transient:
        return _take_root(spec, facts)
    from machinectl_py.plan.steps import ephemeral

    layer = spec.rootfs.layer or spec.root.rpartition("/")[0]
    own = ephemeral.OwnMachine(record=record_path(spec.name), layer=layer)
    return (own, *_take_root(spec, facts))


def _take_root(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    if facts.disk:
        from machinectl_py.plan.build_disk import take_root

        number, read_only = f"{facts.root_device}:{facts.root_inode}", _only_reads(spec, facts)
        return take_root(spec, facts.disk, number=number, read_only=read_only)
    if spec.rootfs.ephemeral and facts.mounts.snapshot:
        from machinectl_py.plan.steps import ephemeral

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
        shared=_overlays(spec, facts) or _only_reads(spec, facts),
    )
    locks = (lock,) if spec.rootfs.lock else ()
    if layer and layer != spec.rootfs.layer:
        from machinectl_py.plan.steps import ephemeral

        return (*locks, ephemeral.MakeLayer(root=spec.root, layer=layer))
    return locks


def devices(facts: HostFacts) -> tuple[str, ...]:
    """Return the slots with the numbers of the block devices that the supervisor mounts."""
    if facts.disk is None:
        return ()
    from machinectl_py.plan.build_disk import device_slots

    return device_slots(facts.disk)


def take_up(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's steps that take up the root, and give it its owners."""
    layer = layer_of(spec, facts)
    if facts.disk is None and layer:
        return (build_users.mount_layers(spec, facts),)
    if facts.disk is None:
        return (*build_users.chown_root(spec, facts), *build_users.clone_root(spec, facts))
    from machinectl_py.plan.build_disk import mount_partitions

    users, read_only = plan_users(spec, facts), _only_reads(spec, facts)
    steps = mount_partitions(facts.disk, users, read_only=read_only)
    if not layer:
        return steps
    from machinectl_py.plan.build_disk import under_layers
    from machinectl_py.plan.steps.layers import LOWEST

    return (*under_layers(steps, LOWEST), build_users.mount_layers(spec, facts, LOWEST))


def _attach(spec: MachineSpec, facts: HostFacts) -> Step:
    """Return the step inside that makes the root a mount."""
    if facts.disk or spec.users.mode != "no" or layer_of(spec, facts):
        return root.AttachRoot()
    return root.BindRoot(root=place_of(spec, facts))


def _usr(spec: MachineSpec, facts: HostFacts, *, above: bool) -> tuple[Step, ...]:
    """Return the step that mounts an image's own /usr: above an overlay, as none shows mounts."""
    if facts.disk is None or above != (spec.rootfs.volatile == "overlay"):
        return ()
    from machinectl_py.plan.build_disk import attach_usr

    return attach_usr(facts.disk, place_inside(spec, facts))


def make_up_outside(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's steps that make up a root with overlays, if PID 1 could not."""
    if not _made_outside(spec, facts):
        return ()
    from machinectl_py.plan.steps import outside

    moved = (step.replace(place="supervisor") for step in _make_up(spec, facts))
    return (outside.UnshareMounts(), *moved, outside.RejoinMounts())


def make_up(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps inside that make up the root at its place, and the overlays."""
    if _made_outside(spec, facts):
        return (root.AttachRoot(tree=root.COMPOSED_TREE),)
    return _make_up(spec, facts)


def _made_outside(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether there is an overlay and a user namespace whose root could not make it."""
    above = _overlays(spec, facts) or spec.rootfs.volatile == "overlay"
    overlays = above or any(isinstance(mount, OverlayMount) for mount in spec.mounts)
    return overlays and spec.users.mode != "no"


def _make_up(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    return (*_compose(spec, facts), *make(spec, facts))


def _compose(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that make up the root at its place."""
    place, rootfs = place_inside(spec, facts), spec.rootfs
    scratch = machine_dir(spec.name)
    steps: list[Step] = [_attach(spec, facts), *_usr(spec, facts, above=False)]
    overlays = _overlays(spec, facts)
    if not overlays and not rootfs.pivot_new and rootfs.volatile not in ("yes", "overlay"):
        return (*steps, *_usr(spec, facts, above=True))
    from machinectl_py.plan.steps import compose_root

    if overlays:
        steps.append(compose_root.OverlayRoot(root=place, scratch=scratch))
    if rootfs.pivot_new:
        steps.append(
            compose_root.EnterDirectory(root=place, new=rootfs.pivot_new, old=rootfs.pivot_old)
        )
    if rootfs.volatile == "yes":
        steps.append(compose_root.MakeVolatileRoot(root=place))
    elif rootfs.volatile == "overlay":
        nodev = facts.disk is not None
        steps.append(compose_root.OverlayRoot(root=place, scratch=scratch, nodev=nodev))
    return (*steps, *_usr(spec, facts, above=True))


def _cover(spec: MachineSpec, facts: HostFacts) -> Custom | None:
    """Return the custom mount on the root itself."""
    return next((m for m in custom(spec, facts) if not parts(target_of(m))), None)


def cover(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step that mounts what the user wants on the root itself."""
    mount, place = _cover(spec, facts), place_inside(spec, facts)
    if mount is None:
        return ()
    from machinectl_py.plan.steps import compose_root

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
    steps: list[Step] = []
    if facts.disk:
        from machinectl_py.plan.build_disk import attach_others

        steps += attach_others(facts.disk)
    steps.append(base_tree.FillBaseTree())
    wished = spec.rootfs.read_only and spec.rootfs.volatile == "no"
    if spec.rootfs.volatile == "state" or (wished and not _cover(spec, facts)):
        steps.append(root.RemountReadOnly(target="/", recursive=True))
    if spec.rootfs.volatile == "state":
        steps.append(
            api.MountFileSystem(
                fstype="tmpfs",
                target="/var",
                flags=const.MS_STRICTATIME,
                data=_VOLATILE_STATE,
            )
        )
    return tuple(steps)
