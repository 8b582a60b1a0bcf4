"""What a machine sees besides its root and the API file systems; docs/design/mounts.md.

Pure functions of spec and facts, each for one place in the order that `build.py` makes.
"""

from __future__ import annotations

from machinectl_py.config.spec import BindMount, InaccessibleMount, OverlayMount, TmpfsMount
from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError
from machinectl_py.layout import machine_dir
from machinectl_py.plan.steps.root import ANCHOR
from machinectl_py.plan.users import ids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.config.spec import BindIdmap, MachineSpec, UsersSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

    Custom = BindMount | TmpfsMount | OverlayMount | InaccessibleMount
    When = Literal["early", "late", "proc"]

_TEMPORARIES = "/var/tmp"
_NEEDED = (("run",), ("run", "host"), ("run", "host", "incoming"))
_KINDS: tuple[type[Custom], ...] = (BindMount, TmpfsMount, OverlayMount, InaccessibleMount)


def target_of(mount: Custom) -> str:
    """Return where a mount is seen inside."""
    return mount.hidden if isinstance(mount, InaccessibleMount) else mount.target


def parts(path: str) -> tuple[str, ...]:
    """Return the names in a path; what differs by a slash or dot alone is the same."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def custom(spec: MachineSpec, facts: HostFacts) -> tuple[Custom, ...]:
    """Return the mounts to be made: parents before what is below them, as systemd-nspawn's.

    Of several on one target, the one that systemd-nspawn would mount last, on top of the others.
    """
    there = (mount for mount in spec.mounts if not _is_passed_over(mount, facts))
    on_top = {parts(target_of(mount)): mount for mount in sorted(there, key=_order)}
    return tuple(on_top.values())


def _order(mount: Custom) -> tuple[tuple[bytes, ...], int]:
    names = tuple(part.encode("utf-8", "surrogateescape") for part in parts(target_of(mount)))
    return names, _KINDS.index(type(mount))


def _is_passed_over(mount: Custom, facts: HostFacts) -> bool:
    return isinstance(mount, BindMount) and mount.optional and mount.source in facts.mounts.missing


def check_mounts(spec: MachineSpec, facts: HostFacts) -> None:
    """Refuse mounts that cannot be made, before anything is touched.

    Raises:
        ConfigError: a path is not absolute.
        NotFoundError: a source is not there.
        UnsupportedError: the layers of an overlay, or a target, cannot be used.
    """
    for mount in custom(spec, facts):
        target = target_of(mount)
        if not target.startswith("/"):
            raise ConfigError(f"'{target}' is no absolute path to mount on")
        if parts(target) in _NEEDED:
            raise UnsupportedError(
                f"Nothing can be mounted on {target}: a machine's manager talks to it there",
                "Below it, mounts can be made.",
            )
        if isinstance(mount, BindMount):
            _check_source(mount.source, target, facts)
            _check_idmap(mount, spec, facts)
        elif isinstance(mount, OverlayMount):
            _check_overlay(mount, spec, facts)
        elif isinstance(mount, InaccessibleMount) and not parts(target):
            raise ConfigError("The root of a machine cannot be made inaccessible")


def _check_source(source: str, target: str, facts: HostFacts) -> None:
    if source and not source.removeprefix("+").startswith("/"):
        raise ConfigError(f"'{source}', to be mounted on {target}, is no absolute path")
    if source in facts.mounts.missing:
        raise NotFoundError(f"There is no {source} on this host, to be mounted on {target}")


def _check_idmap(mount: BindMount, spec: MachineSpec, facts: HostFacts) -> None:
    if idmap_of(mount, spec.users) == "noidmap":
        return
    if mount.source.startswith("+"):
        raise UnsupportedError(f"The ids of {mount.source}, a path inside, cannot be mapped")
    if mount.idmap == "idmap" and spec.users.mode == "no":
        raise UnsupportedError(
            f"The ids of {mount.source} cannot be mapped to those of the machine,"
            " which has the host's",
            "--private-users=pick gives it its own; 'rootidmap' maps the owner to root.",
        )
    _check_mappable(mount.source, facts)


def _check_mappable(source: str, facts: HostFacts) -> None:
    if why := dict(facts.mounts.unmappable).get(source):
        raise UnsupportedError(f"The ids of {source} cannot be mapped: {why}")


def _check_overlay(mount: OverlayMount, spec: MachineSpec, facts: HostFacts) -> None:
    if not mount.lower:
        raise ConfigError(f"The overlay on {mount.target} has no lower directory")
    missing_upper = not mount.read_only and mount.upper in facts.mounts.missing
    for path in mount.lower if missing_upper else (*mount.lower, mount.upper):
        _check_source(path, mount.target, facts)
        if path in facts.mounts.files:
            raise ConfigError(f"{path}, a layer of the overlay on {mount.target}, is no directory")
    changed = spec.rootfs.volatile != "no" or spec.rootfs.ephemeral or spec.rootfs.pivot_new
    if mount.upper.startswith("+") and not mount.read_only and (changed or spec.rootfs.image):
        raise UnsupportedError(
            f"The upper layer {mount.upper} of the overlay on {mount.target} would lie in a root"
            " that is made for this start alone",
            "Without an upper layer, a temporary one is taken.",
        )


def idmap_of(mount: BindMount, users: UsersSpec) -> BindIdmap:
    """Return how the ids of a bind mount are shown."""
    of_host = bool(mount.source) and not mount.source.startswith("+")
    if users.map_mounts and of_host and mount.idmap == "noidmap":
        return "idmap"
    return mount.idmap


def place_of(spec: MachineSpec, facts: HostFacts) -> str:
    """Return the directory of the host that becomes the root: a snapshot has its own."""
    snapshot = facts.mounts.snapshot if spec.rootfs.ephemeral else ""
    return snapshot or spec.root


def layer_of(spec: MachineSpec, facts: HostFacts) -> str:
    """Return the directory that takes what is written to a root of layers; "" if it is none."""
    return spec.rootfs.layer or (facts.mounts.layer if spec.rootfs.ephemeral else "")


def place_inside(spec: MachineSpec, facts: HostFacts) -> str:
    """Return where PID 1 has the root before it pivots to it."""
    if facts.disk or spec.users.mode != "no" or layer_of(spec, facts):
        return ANCHOR
    return place_of(spec, facts)


def prepare(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the launcher's steps: directories that go with the machine."""
    steps: list[Step] = []
    mounts = custom(spec, facts)
    if entries := tuple(entry for mount in mounts for entry in _temporary_entries(mount, mounts)):
        from machinectl_py.plan.steps import overlay

        steps.append(overlay.MakeTemporaries(directory=_directory(spec, facts), entries=entries))
    uppers = tuple(
        mount.upper
        for mount in mounts
        if isinstance(mount, OverlayMount) and mount.upper and not mount.read_only
    )
    if uppers:
        from machinectl_py.plan.steps import overlay

        token = facts.mounts.token
        steps.append(overlay.MakeWorkDirectories(root=spec.root, uppers=uppers, token=token))
    return tuple(steps)


def _directory(spec: MachineSpec, facts: HostFacts) -> str:
    return f"{_TEMPORARIES}/pymachine-{spec.name}-{facts.mounts.token}"


def _temporary_entries(mount: Custom, mounts: tuple[Custom, ...]) -> tuple[str, ...]:
    number = mounts.index(mount)
    if isinstance(mount, BindMount) and not mount.source:
        return (f"{number}-src",)
    if isinstance(mount, OverlayMount) and not mount.upper:
        return (f"{number}-src",) if mount.read_only else (f"{number}-src", f"{number}-work")
    return ()


def clone_binds(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's steps that take up what is the host's, for PID 1 to attach."""
    return tuple(
        _clone_bind(mount, mount.source or f"{_temporary(spec, facts, number)}-src", spec, facts)
        for number, mount in enumerate(custom(spec, facts))
        if isinstance(mount, BindMount) and not mount.source.startswith("+")
    )


def _clone_bind(mount: BindMount, source: str, spec: MachineSpec, facts: HostFacts) -> Step:
    from machinectl_py.plan.steps import custom_mounts

    idmap = idmap_of(mount, spec.users)
    clone = custom_mounts.CloneBind(
        source=source,
        target=mount.target,
        recursive=mount.recursive,
        temporary=not mount.source,
        idmap=idmap,
    )
    if idmap == "noidmap":
        return clone
    root, inside = spec.root, mount.target
    if facts.disk:
        from machinectl_py.plan.build_disk import holder

        root, inside = holder(facts.disk, mount.target)
    return clone.replace(count=ids_of(spec.users), root=root, inside=inside)


def make(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps before the pivot that make overlays; and take up a root in the root."""
    steps: list[Step] = []
    for number, mount in enumerate(custom(spec, facts)):
        if isinstance(mount, OverlayMount):
            steps.append(_overlay(mount, spec, facts, _temporary(spec, facts, number)))
        elif isinstance(mount, BindMount) and mount.source.startswith("+"):
            if parts(mount.target):
                continue  # bound when its turn comes, see BindInside
            from machinectl_py.plan.steps import custom_mounts

            source, place = mount.source.removeprefix("+"), place_inside(spec, facts)
            steps.append(
                custom_mounts.CloneInside(source=source, root=place, recursive=mount.recursive)
            )
    return tuple(steps)


def _temporary(spec: MachineSpec, facts: HostFacts, number: int) -> str:
    return f"{_directory(spec, facts)}/{number}"


def _overlay(mount: OverlayMount, spec: MachineSpec, facts: HostFacts, temporary: str) -> Step:
    from machinectl_py.plan.steps import overlay

    upper, work = mount.upper, ""
    if not upper:
        upper, work = f"{temporary}-src", f"{temporary}-work"
    elif not mount.read_only:
        work = overlay.beside(upper, facts.mounts.token)
    place = place_inside(spec, facts)
    made = overlay.MakeOverlay(
        target=mount.target, root=place, lower=mount.lower, upper=upper, work=work
    )
    if mount.read_only:
        made = made.replace(lower=(*mount.lower, upper), upper="", work="", read_only=True)
    if spec.users.mode == "no":
        return made
    mapped = ids_of(spec.users) if spec.users.map_mounts else 0
    new = not mount.upper or (mount.upper in facts.mounts.missing and not mapped)
    return made.replace(owned=upper if new else "", mapped=mapped, scratch=machine_dir(spec.name))


def attach(spec: MachineSpec, facts: HostFacts, when: When) -> tuple[Step, ...]:
    """Return the steps that put the mounts at their places.

    Args:
        spec: of the machine.
        facts: of the host.
        when: "early" are those below /run/host and /sys, before these become read-only; "proc"
            those in /proc, after the machine's own there; "late" the others.
    """
    steps: list[Step] = []
    mounts = custom(spec, facts)
    whole_sys = any(parts(target_of(mount)) == ("sys",) for mount in mounts)
    for mount in mounts:
        names = parts(target_of(mount))
        if names and _when(names, whole_sys) == when:
            steps.append(_attach(mount))
    return tuple(steps)


def _when(names: tuple[str, ...], whole_sys: bool) -> When:
    if names[:1] == ("proc",):
        return "proc"
    if names[:2] == ("run", "host"):
        return "early"
    # The cgroups are mounted after the early ones.
    in_sys = names[:1] == ("sys",) and names[:3] != ("sys", "fs", "cgroup") and not whole_sys
    return "early" if in_sys else "late"


def _attach(mount: Custom) -> Step:
    from machinectl_py.plan.steps import custom_mounts

    if isinstance(mount, TmpfsMount):
        return custom_mounts.MountTmpfs(target=mount.target, options=mount.options)
    if isinstance(mount, InaccessibleMount):
        return custom_mounts.HideTarget(target=mount.hidden)
    if isinstance(mount, OverlayMount):
        return custom_mounts.AttachMount(source="overlay", target=mount.target)
    if mount.source.startswith("+"):
        return custom_mounts.BindInside(
            source=mount.source.removeprefix("+"),
            target=mount.target,
            recursive=mount.recursive,
            read_only=mount.read_only,
            optional=mount.optional,
        )
    return custom_mounts.AttachMount(
        source=mount.source or "a temporary directory",
        target=mount.target,
        read_only=mount.read_only,
    )
