"""The user namespace: its range, the owners of the root's files, the maps; user_namespaces(7)."""

from __future__ import annotations

import os

from machinectl_py.kernel import chown_tree, const, filesystem, idmap, process
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.layout import unix_export_dir
from machinectl_py.plan import id_ranges
from machinectl_py.plan.bind_users import (
    BoundUser,
    check_outside,
    gid_holes,
    map_rows,
    uid_holes,
)
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.root import ROOT_TREE
from machinectl_py.plan.users import delegated_rows, root_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.plan.context import Context
    from machinectl_py.plan.users import RootOwnership

_WHOLE = "/run/host"  # where systemd-nspawn has them too, while it starts a container
_HELPER_PID = 300  # of a process that is gone before the payload: 2 is the stub init's command


def delegated(context: Context) -> tuple[int, ...]:
    """Return the first ids of the ranges for nested machines."""
    return tuple(map(int, context.text("id-delegated").split()))


class HoldIdRange(Step):
    """Take the range of ids of the machine, and those for machines in it."""

    name = "hold-id-range"
    place = "launcher"
    man = "https://systemd.io/UIDS-GIDS"
    because = "before anything is given to a range, which may be another machine's"
    lifetime = "host"
    takes = ("lock",)
    gives = ("id-base", "id-delegated", "id-locks")

    machine: str
    source: Literal["fixed", "pick"]
    base: int  # "fixed": it is this; else what is tried first, 0 for nothing
    count: int
    delegate: int

    def describe(self) -> str:
        """Return the act."""
        if self.source == "fixed":
            text = f"take the {self.count} ids from {self.base} on"
        else:
            text = f"pick {self.count} ids that nobody has, by the machine's name"
        return text + (f", and {self.delegate} ranges for nested machines" * bool(self.delegate))

    def command(self) -> str:
        """Return the shell's way."""
        lock = id_ranges.lock_path(self.base) if self.source == "fixed" else "…"
        return f"flock --nonblock {lock} …"

    def apply(self, context: Context) -> None:
        """Take the locks, which are held as long as a supervisor of the machine lives."""
        held = [self._take()]
        for number in range(self.delegate):
            taken = tuple(one.base for one in held)
            held.append(id_ranges.pick_range(f"{self.machine}/{number}", 0, taken))
        context.give("id-base", held[0].base)
        context.give("id-delegated", " ".join(str(one.base) for one in held[1:]))
        context.give("id-locks", " ".join(f"{one.base}:{one.lock}" for one in held))

    def _take(self) -> id_ranges.HeldRange:
        if self.source == "pick":
            return id_ranges.pick_range(self.machine, self.base)
        # Who says which range may share it; but it is not to be picked meanwhile.
        lock = id_ranges.take_range(self.base) if self.base else None
        return id_ranges.HeldRange(base=self.base, lock=-1 if lock is None else lock)

    def undo(self, context: Context) -> None:
        """Remove the locks: where they are ours, and where nobody holds them any more."""
        for word in str(context.slots.get("id-locks", "")).split():
            base, lock = map(int, word.split(":"))
            id_ranges.release_range(base, lock)


def lock_descriptors(slot: str) -> tuple[int, ...]:
    """Return the descriptors in the slot "id-locks"."""
    numbers = (int(word.partition(":")[2]) for word in slot.split())
    return tuple(number for number in numbers if number >= 0)


class ChownRoot(Step):
    """Give the files of the root to the machine's range."""

    name = "chown-root"
    place = "supervisor"
    man = "chown(2)"
    because = "before the birth: inside, who they belong to now is nobody"
    lifetime = "process"  # it stays: --private-users-ownership=chown with the range 0 undoes it
    takes = ("id-base",)

    root: str

    def describe(self) -> str:
        """Return the act."""
        return f"chown everything in {self.root} to the range, unless it is"

    def apply(self, context: Context) -> None:
        """Change it; what was interrupted is taken up again."""
        chown_tree.move_tree(self.root, context.number("id-base"))


class CloneRoot(Step):
    """Take a detached copy of the root's mounts, through which its ids are seen mapped."""

    name = "clone-root"
    place = "supervisor"
    man = "mount_setattr(2) MOUNT_ATTR_IDMAP"
    because = "by root of the host: PID 1 may neither reach the root nor map its ids"
    takes = ("id-base", "id-delegated")
    gives = (ROOT_TREE,)

    root: str
    count: int
    ownership: RootOwnership

    def describe(self) -> str:
        """Return the act."""
        mapped = {"map": ", ids mapped from 0", "foreign": ", ids mapped from the foreign range"}
        return f"open_tree {self.root}, rprivate{mapped.get(self.ownership, '')}"

    def command(self) -> str:
        """Return the shell's way."""
        shift = f"-o X-mount.idmap=b:0:BASE:{self.count} " if self.ownership == "map" else ""
        return f"mount --rbind {shift}{self.root} …"

    def apply(self, context: Context) -> None:
        """Clone and map it."""
        tree = kernel_mount.open_tree(self.root)
        kernel_mount.set_attributes(tree, propagation=const.MS_PRIVATE)
        base = context.number("id-base")
        maps = root_maps(self.ownership, base, self.count, delegated(context))
        if maps:
            idmap.map_tree(tree, maps)
        context.give(ROOT_TREE, tree)


class WriteIdMaps(Step):
    """Say which ids of the host those in the new user namespace are."""

    name = "write-id-maps"
    place = "supervisor"
    man = "user_namespaces(7)"
    because = "PID 1 waits for it: before, it is nobody"
    takes = ("leader", "id-base", "id-delegated")
    gives = ("id-maps",)

    count: int
    users: tuple[BoundUser, ...] = ()  # of the host, who keep their ids

    def describe(self) -> str:
        """Return the act."""
        bound = "".join(f", {user.uid} is {user.host.uid}" for user in self.users)
        return f"write uid_map and gid_map: {self.count} ids from the range's first on{bound}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"echo 0 BASE {self.count} > /proc/LEADER/uid_map; …"

    def apply(self, context: Context) -> None:
        """Write both."""
        base, more = context.number("id-base"), delegated_rows(delegated(context))
        for user in self.users:
            check_outside(user.host, base, self.count)
        maps = idmap.IdMaps(
            uids=map_rows(base, self.count, uid_holes(self.users)) + more,
            gids=map_rows(base, self.count, gid_holes(self.users)) + more,
        )
        idmap.write_maps(context.number("leader"), maps)
        context.give("id-maps", 1)


class MakeApiMounts(Step):
    """Make the machine's proc and sysfs, which PID 1 may not: it sees no whole ones."""

    name = "make-api-mounts"
    place = "supervisor"
    man = "fsmount(2)"
    because = "by root of the host in the machine's PID and network namespace, whose they show"
    takes = ("leader-pidfd",)
    gives = ("proc", "sysfs")

    own_network: bool
    nesting: bool = False  # another sysfs, see `ShowWhole`

    def given_slots(self) -> tuple[str, ...]:
        """Return the slots, with that of another sysfs."""
        return (*self.gives, "whole-sysfs") if self.nesting else self.gives

    def describe(self) -> str:
        """Return the act."""
        return (
            "fsmount proc and sysfs, as detached mounts; of a sysfs that is denied open_tree /sys"
        )

    def apply(self, context: Context) -> None:
        """Make both by a short-lived process there."""
        proc, sysfs, *more = filesystem.make_filesystems_in(
            context.number("leader-pidfd"),
            const.CLONE_NEWNET if self.own_network else 0,
            ("proc", "sysfs", *(("sysfs",) if self.nesting else ())),
            const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV | const.MOUNT_ATTR_NOEXEC,
            pid=_HELPER_PID,
            optional="sysfs",
        )
        if sysfs < 0:  # we are in a user namespace, and our own /sys is no whole one
            sysfs = kernel_mount.open_tree("/sys")
            kernel_mount.set_attributes(sysfs, propagation=const.MS_PRIVATE)
            if self.own_network:
                context.warn("The machine's /sys/class/net has the host's links")
        context.give("proc", proc)
        context.give("sysfs", sysfs)
        for another in more:
            context.give("whole-sysfs", another)


class OwnUnixExport(Step):
    """Let root inside put sockets into the directory that is shared with the host for them."""

    name = "own-unix-export"
    place = "supervisor"
    man = "chown(2)"
    because = "its owner would be nobody inside"
    takes = ("id-base",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"chown {unix_export_dir(self.machine)} to the range's first id"

    def apply(self, context: Context) -> None:
        """Change the owner."""
        base = context.number("id-base")
        os.chown(unix_export_dir(self.machine), base, base, follow_symlinks=False)


class BecomeRoot(Step):
    """Be root of the new user namespace."""

    name = "become-root"
    man = "user_namespaces(7)"
    because = "first of all: what is made from here on belongs to it"
    takes = ("id-maps",)

    def describe(self) -> str:
        """Return the act."""
        return "setresuid 0, setresgid 0"

    def apply(self, context: Context) -> None:
        """Die with the supervisor before and after, since the change takes that back."""
        process.set_parent_death_signal(const.SIGKILL)
        idmap.become_root()
        process.set_parent_death_signal(const.SIGKILL)


class AttachProc(Step):
    """Mount the proc that was made outside."""

    name = "attach-proc"
    man = "proc(5)"
    because = "the first mount of all inside: others are made by way of /proc/self/fd"
    takes = ("proc",)

    def label(self) -> str:
        """Return the step's name, that of the other way to mount it."""
        return "mount /proc"

    def describe(self) -> str:
        """Return the act."""
        return "mount the proc made outside on /proc"

    def apply(self, context: Context) -> None:
        """Attach it."""
        os.makedirs("/proc", exist_ok=True)
        attach(context, "proc", "/proc")


class ShowWhole(Step):
    """Keep a proc and a sysfs that nothing covers, for what is root of user namespaces inside."""

    name = "show-whole"
    man = "mount_namespaces(7)"
    because = "in a user namespace the kernel mounts others only where a whole one is mounted"
    takes = ("whole-sysfs",)

    def describe(self) -> str:
        """Return the act."""
        return f"bind /proc on {_WHOLE}/proc, mount a whole sysfs on {_WHOLE}/sys"

    def apply(self, context: Context) -> None:
        """Mount both; there is no sysfs where we may make none ourselves."""
        os.mkdir(f"{_WHOLE}/proc", 0o755)
        kernel_mount.mount("/proc", f"{_WHOLE}/proc", flags=const.MS_BIND)
        if context.number("whole-sysfs") >= 0:
            os.mkdir(f"{_WHOLE}/sys", 0o755)
            attach(context, "whole-sysfs", f"{_WHOLE}/sys")


class AwaitOutside(Step):
    """Wait until the supervisor has given the cgroup away, as only root of the host can."""

    name = "await-outside"
    man = "https://systemd.io/CGROUP_DELEGATION"
    because = "an init looks for its cgroup once"
    takes = ("owned-cgroup",)

    def describe(self) -> str:
        """Return the act."""
        return "wait until the cgroup is the machine's"

    def apply(self, context: Context) -> None:
        """Do nothing: to have got here is to have waited."""


def attach(context: Context, slot: str, target: str) -> None:
    """Attach the detached mount in a slot to a directory."""
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = context.number(slot)
    try:
        kernel_mount.move_mount(tree, place)
    finally:
        os.close(place)
        os.close(tree)
