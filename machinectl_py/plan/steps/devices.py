"""/dev inside: device nodes, links, and the console."""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.terminal import open_pty_in
from machinectl_py.plan.facts import DeviceNode
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_S_IFCHR = 0o20000
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}


def _names(nodes: tuple[DeviceNode, ...]) -> str:
    return f"/dev/{{{','.join(node.name for node in nodes)}}}"


def _make_parent(node: DeviceNode) -> str:
    """Return the path of a node, for which all is made but itself."""
    path = f"/dev/{node.name}"
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    return path


class MakeDeviceNodes(Step):
    """Make the device nodes that every program may count on, and no other."""

    name = "make-device-nodes"
    man = "mknod(2)"
    because = "on the tmpfs at /dev, before /dev/net may be mounted over"

    nodes: tuple[DeviceNode, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"mknod {_names(self.nodes)}"

    def command(self) -> str:
        """Return the shell's way."""
        return "mknod -m 666 /dev/null c 1 3; …"

    def apply(self, context: Context) -> None:
        """Make them with the permissions that the host's have."""
        for node in self.nodes:
            path = _make_parent(node)
            os.mknod(path, _S_IFCHR, os.makedev(node.major, node.minor))
            os.chmod(path, node.mode)  # whatever the umask


class CloneDeviceNodes(Step):
    """Take the host's device nodes as detached mounts."""

    name = "clone-device-nodes"
    place = "supervisor"
    man = "open_tree(2)"
    because = "nodes made inside could not be opened, and there the host's are out of reach"

    nodes: tuple[DeviceNode, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {_names(self.nodes)}"

    def given_slots(self) -> tuple[str, ...]:
        """Return a slot for each node."""
        return tuple(f"device:{node.name}" for node in self.nodes)

    def apply(self, context: Context) -> None:
        """Clone them, apart from what happens to the host's."""
        for node, slot in zip(self.nodes, self.given_slots(), strict=True):
            tree = kernel_mount.open_tree(f"/dev/{node.name}", recursive=False)
            kernel_mount.set_attributes(tree, propagation=const.MS_PRIVATE)
            context.give(slot, tree)


class BindDeviceNodes(Step):
    """Show the host's device nodes, where new ones could not be made or used."""

    name = "bind-device-nodes"
    man = "move_mount(2)"
    because = "on the tmpfs at /dev; CAP_MKNOD, a device cgroup or a user namespace denies mknod(2)"

    nodes: tuple[DeviceNode, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"bind {_names(self.nodes)} of the host"

    def command(self) -> str:
        """Return the shell's way."""
        return "touch /dev/null && mount --bind /dev/null /dev/null; …"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of each node."""
        return tuple(f"device:{node.name}" for node in self.nodes)

    def apply(self, context: Context) -> None:
        """Attach each to an empty file."""
        for node, slot in zip(self.nodes, self.needed_slots(), strict=True):
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(_make_parent(node), flags, 0o600))
            target = os.open(f"/dev/{node.name}", os.O_PATH | os.O_CLOEXEC)
            tree = context.number(slot)
            kernel_mount.move_mount(tree, target)
            os.close(target)
            os.close(tree)


class LinkDevices(Step):
    """Make the links in /dev that programs know, and those by number in /dev/char."""

    name = "link-devices"
    man = "symlink(2)"
    because = "what they lead to is there, or comes"

    nodes: tuple[DeviceNode, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"link /dev/{{{','.join(_LINKS)}}}, /dev/char/MAJOR:MINOR"

    def command(self) -> str:
        """Return the shell's way."""
        return "ln -s /proc/self/fd /dev/fd; …"

    def apply(self, context: Context) -> None:
        """Make them; no link to /proc/kcore where the kernel has none."""
        for link, target in _LINKS.items():
            if target != "/proc/kcore" or os.path.exists(target):
                os.symlink(target, f"/dev/{link}")
        os.mkdir("/dev/char", 0o755)
        for node in self.nodes:
            os.symlink(f"../{node.name}", f"/dev/char/{node.major}:{node.minor}")


class AllocateConsole(Step):
    """Open a pseudo-terminal and make it /dev/console; the supervisor gets the master."""

    name = "allocate-console"
    man = "pty(7)"
    because = "in the machine's own devpts, so that its name is valid inside"
    gives = ("console",)

    def describe(self) -> str:
        """Return the act."""
        return "open a pseudo-terminal, link it as /dev/console"

    def apply(self, context: Context) -> None:
        """Open it; a link, as systemd-nspawn makes, can be followed to its name and moved."""
        pts = os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = open_pty_in(pts)
        os.close(pts)
        os.symlink(os.path.relpath(slave, "/dev"), "/dev/console")
        context.give("console", master)


class OpenStdio(Step):
    """Make /dev/console standard input, output and error."""

    name = "open-stdio"
    man = "dup2(2)"
    because = "late, so that errors up to here go where the user sees them"
    takes = ("console",)

    controlling: bool  # a command wants Ctrl-C; an init would reboot by it

    def describe(self) -> str:
        """Return the act."""
        role = ", as controlling terminal" if self.controlling else ""
        return f"open /dev/console as stdin, stdout and stderr{role}"

    def apply(self, context: Context) -> None:
        """Open it."""
        fd = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.controlling:
            import fcntl

            fcntl.ioctl(fd, const.TIOCSCTTY, 0)
        for number in range(3):
            os.dup2(fd, number)
        os.close(fd)
