"""The machine's root: cloned sources, propagation, pivot_root, and what the user asked to see."""

from __future__ import annotations

import os

from machinectl_py.kernel import const, process
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.paths import make_in_root
from machinectl_py.plan.step import MovableStep, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

# Everybody can reach it on every host, so PID 1, nobody there, can mount the root on it.
ANCHOR = "/sys"
ROOT_TREE = "mount:root"  # slot of a detached mount that shall be the root
COMPOSED_TREE = "mount:composed"  # the same, of all that the root is made up of

_SEALED = const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV | const.MOUNT_ATTR_NOEXEC


class DieWithSupervisor(Step):
    """Have the kernel kill PID 1, and so the machine, when its supervisor dies."""

    name = "die-with-supervisor"
    man = "prctl(2) PR_SET_PDEATHSIG"
    because = "first inside: a killed supervisor must leave nothing that runs"

    def describe(self) -> str:
        """Return the act."""
        return "prctl PR_SET_PDEATHSIG SIGKILL"

    def command(self) -> str:
        """Return the shell's way."""
        return "setpriv --pdeathsig KILL …"

    def apply(self, context: Context) -> None:
        """Set it, and a session of our own, apart from the caller's terminal."""
        process.set_parent_death_signal(const.SIGKILL)
        os.setsid()


class EnslaveMounts(Step):
    """Let mounts of the host come in, and none of ours go out."""

    name = "enslave-mounts"
    man = "mount_namespaces(7)"
    because = "before the first mount, which the host would see otherwise"

    def describe(self) -> str:
        """Return the act."""
        return "make / rslave"

    def command(self) -> str:
        """Return the shell's way."""
        return "mount --make-rslave /"

    def apply(self, context: Context) -> None:
        """Change the propagation of all mounts."""
        kernel_mount.mount("", "/", flags=const.MS_SLAVE | const.MS_REC)


class CloneSource(Step):
    """Take a detached copy of a mount of the host."""

    name = "clone-source"
    place = "supervisor"
    man = "open_tree(2)"
    because = "by root of the host, who may open any path: in a user namespace PID 1 may not"

    source: str
    recursive: bool = True

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.source}"

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {self.source}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot, named by the source."""
        return (f"tree:{self.source}:{self.recursive}",)

    def apply(self, context: Context) -> None:
        """Clone it; slave, so that later mounts on the host are seen, as with a bind mount."""
        tree = kernel_mount.open_slave_tree(self.source, recursive=self.recursive)
        context.give(self.given_slots()[0], tree)


class BindRoot(Step):
    """Make the root directory a mount of its own, private."""

    name = "bind-root"
    man = "pivot_root(2)"
    because = "pivot_root wants a mount point"

    root: str

    def describe(self) -> str:
        """Return the act."""
        return f"bind {self.root} on itself, rprivate"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --rbind --make-rprivate {self.root} {self.root}"

    def apply(self, context: Context) -> None:
        """Bind it with what is mounted below."""
        kernel_mount.mount(self.root, self.root, flags=const.MS_BIND | const.MS_REC)
        kernel_mount.mount("", self.root, flags=const.MS_PRIVATE | const.MS_REC)


class AttachRoot(MovableStep):
    """Mount the root where it can be pivoted to."""

    name = "attach-root"
    man = "move_mount(2)"
    because = "pivot_root wants a mount point, in this mount namespace"

    tree: str = ROOT_TREE  # slot of the detached mount

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the mount."""
        return (self.tree,)

    def describe(self) -> str:
        """Return the act."""
        return f"mount the root on {ANCHOR}"

    def apply(self, context: Context) -> None:
        """Attach it."""
        place = os.open(ANCHOR, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = context.take(self.tree)
        kernel_mount.move_mount(tree, place)
        for fd in (place, tree):
            os.close(fd)


class PivotRoot(Step):
    """Make it the root, and let go of the host's tree."""

    name = "pivot-root"
    man = "pivot_root(2)"
    because = "from here every path is resolved inside the machine: no link leads out"

    root: str

    def describe(self) -> str:
        """Return the act."""
        return f"pivot_root to {self.root}, detach the host's tree"

    def command(self) -> str:
        """Return the shell's way."""
        return f"cd {self.root} && pivot_root . . && umount -l ."

    def apply(self, context: Context) -> None:
        """Stack the old root on the new one, then detach it, as pivot_root(2) shows."""
        os.chdir(self.root)
        kernel_mount.pivot_root(".", ".")
        kernel_mount.umount2(".", const.MNT_DETACH)
        os.chdir("/")


class AttachSource(Step):
    """Mount a cloned source at its place inside."""

    name = "attach-source"
    man = "move_mount(2)"
    because = "after the API file systems, as it may lie on one of them"

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    sealed: bool = False  # nosuid, nodev, noexec, and nothing that happens to the source is seen

    def label(self) -> str:
        """Return the step's own name."""
        return f"bind {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"bind {self.source} on {self.target}" + (" read-only" if self.read_only else "")

    def command(self) -> str:
        """Return the shell's way."""
        mode = f"--{'r' if self.recursive else ''}bind"
        return f"mount {mode}{' -o ro' if self.read_only else ''} {self.source} {self.target}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the source."""
        return (f"tree:{self.source}:{self.recursive}",)

    def apply(self, context: Context) -> None:
        """Make the target if it is missing, and attach."""
        tree = context.number(self.needed_slots()[0])
        directory = os.path.isdir(f"/proc/self/fd/{tree}")
        if self.read_only:
            kernel_mount.set_attributes(tree, const.MOUNT_ATTR_RDONLY)
        if self.sealed:
            kernel_mount.set_attributes(tree, _SEALED, propagation=const.MS_PRIVATE)
        target = make_in_root(root := os.open("/", os.O_PATH), self.target, directory=directory)
        kernel_mount.move_mount(tree, target)
        for fd in (tree, target, root):
            os.close(fd)


class RemountReadOnly(Step):
    """Make a mount read-only, and with `recursive` all below it."""

    name = "remount-read-only"
    man = "mount(2) MS_REMOUNT"
    because = "after what had to be written there"

    target: str
    recursive: bool = False

    def label(self) -> str:
        """Return the step's own name."""
        return f"read-only {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"remount {self.target} read-only"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount -o remount,bind,ro {self.target}"

    def apply(self, context: Context) -> None:
        """Remount it, keeping its other flags."""
        kernel_mount.set_attributes(self.target, const.MOUNT_ATTR_RDONLY, recursive=self.recursive)


class ShareMounts(Step):
    """Let the machine's own containers and services receive its mounts."""

    name = "share-mounts"
    man = "mount_namespaces(7)"
    because = "last of the mounts; systemd inside expects its tree to be shared"

    def describe(self) -> str:
        """Return the act."""
        return "make / rshared"

    def command(self) -> str:
        """Return the shell's way."""
        return "mount --make-rshared /"

    def apply(self, context: Context) -> None:
        """Change the propagation of all mounts: new peer groups, none with the host."""
        kernel_mount.mount("", "/", flags=const.MS_SHARED | const.MS_REC)
