"""The mount tree of a machine, and what each mount is to the host; mount_namespaces(7)."""

from __future__ import annotations

from machinectl_py.kernel import procfs
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.kernel.procfs import Mount
    from machinectl_py.runtime.state import MachineState


class MountView(Record):
    """A mount of the machine, seen from both sides."""

    depth: int  # mounts between it and the machine's root
    target: str
    source: str
    root: str  # what of the file system is mounted, as a path in it
    fstype: str
    options: str
    device: str
    propagation: str  # inside: "shared:5", "slave:3", "shared:5,slave:3", "private", "unbindable"
    shared: int
    master: int
    host_path: str  # the same directory or file on the host; "" if the host does not have it
    host_propagation: str  # of the host's mount that holds it
    master_path: str  # the host's mount that a slave receives from; "" if it is no slave of one


def machine_mounts(state: MachineState) -> tuple[MountView, ...]:
    """Return the machine's mounts as a tree, each after the mount it stands on.

    The host's side is what we see ourselves: paths that the caller can use.

    Raises:
        PermissionError: the caller may not look at the leader's mounts.
    """
    host = procfs.mountinfo("self")
    masters = {mount.shared: mount for mount in reversed(host) if mount.shared}
    by_device: dict[str, list[Mount]] = {}
    for mount in host:
        by_device.setdefault(mount.device, []).append(mount)
    return tuple(
        _view(mount, depth, by_device.get(mount.device, []), masters.get(mount.master))
        for mount, depth in in_tree_order(procfs.mountinfo(state.leader))
    )


def in_tree_order(mounts: Iterable[Mount]) -> tuple[tuple[Mount, int], ...]:
    """Return each mount with its depth, after the one it stands on, in the order of mounting."""
    listed = tuple(mounts)
    known = {mount.mount_id for mount in listed}
    children: dict[int, list[Mount]] = {}
    waiting: list[tuple[Mount, int]] = []
    for mount in reversed(listed):
        if mount.parent_id in known and mount.parent_id != mount.mount_id:
            children.setdefault(mount.parent_id, []).append(mount)
        else:  # the root: its parent is outside what the process sees
            waiting.append((mount, 0))
    ordered = []
    while waiting:
        mount, depth = waiting.pop()
        ordered.append((mount, depth))
        waiting += [(child, depth + 1) for child in children.get(mount.mount_id, ())]
    return tuple(ordered)


def _view(mount: Mount, depth: int, candidates: list[Mount], master: Mount | None) -> MountView:
    holder = find_holder(mount.root, candidates)
    return MountView(
        depth=depth,
        target=mount.target,
        source=mount.source,
        root=mount.root,
        fstype=mount.fstype,
        options=mount.options,
        device=mount.device,
        propagation=mount.propagation,
        shared=mount.shared,
        master=mount.master,
        host_path=path_through(holder, mount.root) if holder else "",
        host_propagation=holder.propagation if holder else "",
        master_path=path_through(master, mount.root) if master else "",
    )


def find_holder(root: str, candidates: Iterable[Mount]) -> Mount | None:
    """Return the mount, of these of one file system, that shows the path `root` of it.

    The one that shows least besides, as that is the nearest: of `/` and a bind mount of
    `/var/lib` the latter.
    """
    holding = [mount for mount in candidates if f"{root}/".startswith(f"{mount.root.rstrip('/')}/")]
    return max(holding, key=lambda mount: len(mount.root), default=None)


def path_through(mount: Mount, root: str) -> str:
    """Return where the path `root` of the file system is seen through a mount of it."""
    if not f"{root}/".startswith(f"{mount.root.rstrip('/')}/"):
        return mount.target
    below = root[len(mount.root.rstrip("/")) :].strip("/")
    return f"{mount.target.rstrip('/')}/{below}" if below else mount.target
