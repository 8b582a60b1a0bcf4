"""The steps of the user namespace, one function for each place in the order; pure."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.plan.bind_users import bound_users
from machinectl_py.plan.build_mounts import layer_of, place_of
from machinectl_py.plan.steps import api, cgroup, users
from machinectl_py.plan.steps import lock_mounts as locks
from machinectl_py.plan.users import plan_users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step


def hold_range(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the launcher's step of taking the range of ids."""
    plan = plan_users(spec, facts)
    if plan is None:
        return ()
    return (
        users.HoldIdRange(
            machine=spec.name,
            source=plan.source,
            base=plan.base,
            count=plan.count,
            delegate=plan.delegate,
        ),
    )


def chown_root(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's step that gives the root's files to the range, if it shall."""
    plan = plan_users(spec, facts)
    return (
        (users.ChownRoot(root=place_of(spec, facts)),) if plan and plan.ownership == "chown" else ()
    )


def mount_layers(spec: MachineSpec, facts: HostFacts, slot: str = "") -> Step:
    """Return the supervisor's step that makes the root of layers.

    Args:
        spec: of the machine.
        facts: of the host.
        slot: of a disk image, that of the mount of its root.

    Raises:
        UnsupportedError: the files are to be given to a range of ids.
    """
    plan = plan_users(spec, facts)
    if plan and plan.ownership == "chown":
        why = facts.root.unmappable
        raise UnsupportedError(
            f"The files of {spec.root} cannot be given to a range: other machines stand on it",
            f"Nor can their ids be mapped: {why}. Try --private-users=no."
            if why
            else "--private-users-ownership=map shows them as the machine's.",
        )
    from machinectl_py.plan.steps import layers

    return layers.MountLayers(
        root=spec.root,
        layers=spec.rootfs.layers,
        layer=layer_of(spec, facts),
        users=plan is not None,
        count=plan.count if plan else 0,
        ownership=plan.ownership if plan else "as-is",
        slot=slot,
    )


def clone_root(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's step that takes up the root for PID 1."""
    plan = plan_users(spec, facts)
    if plan is None:
        return ()
    return (
        users.CloneRoot(root=place_of(spec, facts), count=plan.count, ownership=plan.ownership),
    )


def after_birth(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's steps that give the newborn its ids, and what it may not make."""
    plan = plan_users(spec, facts)
    api_mounts = users.MakeApiMounts(own_network=spec.private_network, nesting=nests(spec))
    if plan is None:
        return (api_mounts,) if facts.in_user_namespace else ()
    return (
        users.WriteIdMaps(count=plan.count, users=bound_users(spec, facts)),
        api_mounts,
        cgroup.OwnCgroup(),
        users.OwnUnixExport(machine=spec.name),
        locks.StartLocker(),
    )


def become_root(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the first step inside."""
    return (users.BecomeRoot(),) if spec.users.mode != "no" else ()


def nests(spec: MachineSpec) -> bool:
    """Say whether user namespaces inside shall be able to have a proc and a sysfs of their own."""
    return spec.users.mode != "no" and spec.users.delegate > 0


def show_whole(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the step inside without which they could not."""
    return (users.ShowWhole(),) if nests(spec) else ()


def _needs_outside(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether PID 1 may not mount proc and sysfs, in a new root that has none."""
    return spec.users.mode != "no" or facts.in_user_namespace


def mount_proc(spec: MachineSpec, facts: HostFacts, usual: Step) -> tuple[Step, ...]:
    """Return the step that mounts /proc, `usual` where there is no user namespace."""
    return (users.AttachProc(),) if _needs_outside(spec, facts) else (usual,)


def mount_sys(spec: MachineSpec, facts: HostFacts, writable: Step) -> tuple[Step, ...]:
    """Return the step that mounts /sys; `writable` is the whole of it.

    Raises:
        ConfigError: that in a user namespace.
    """
    made_outside = _needs_outside(spec, facts)
    if not spec.api_writable:
        return (api.MountSys(made_outside=made_outside),)
    if made_outside:
        raise ConfigError("In a user namespace the API file systems cannot be writable")
    return (writable,)


def lock_mounts(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the steps after which root inside cannot undo the mounts made so far."""
    if spec.users.mode == "no":
        return ()
    return (locks.LockMounts(), locks.EndLocker())


def await_outside(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the step inside that waits for what is set from outside."""
    return (users.AwaitOutside(),) if spec.users.mode != "no" else ()
