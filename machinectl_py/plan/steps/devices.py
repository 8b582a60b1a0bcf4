"""/dev inside: device nodes, links, and the console."""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.terminal import open_pty_in
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_S_IFCHR = 0o20000
# Numbers as in the kernel's Documentation/admin-guide/devices.txt.
_NODES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "net/tun": (10, 200),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}


class MakeDeviceNodes(Step):
    """Make the device nodes that every program may count on, and no other."""

    name = "make-device-nodes"
    man = "mknod(2)"
    because = "on the tmpfs at /dev, before /dev/net may be mounted over"

    nodes: tuple[str, ...] = tuple(_NODES)

    def describe(self) -> str:
        """Return the act."""
        return f"make /dev/{{{','.join(self.nodes)}}} and the usual links"

    def command(self) -> str:
        """Return the shell's way."""
        return "mknod -m 666 /dev/null c 1 3; …"

    def apply(self, context: Context) -> None:
        """Make nodes and links."""
        mask = os.umask(0)
        for node in self.nodes:
            if "/" in node:
                os.makedirs(f"/dev/{os.path.dirname(node)}", 0o755, exist_ok=True)
            os.mknod(f"/dev/{node}", _S_IFCHR | 0o666, os.makedev(*_NODES[node]))
        os.umask(mask)
        for link, target in _LINKS.items():
            os.symlink(target, f"/dev/{link}")


class AllocateConsole(Step):
    """Open a pseudo-terminal and make it /dev/console; the supervisor gets the master."""

    name = "allocate-console"
    man = "pty(7)"
    because = "in the machine's own devpts, so that its name is valid inside"
    gives = ("console",)

    def describe(self) -> str:
        """Return the act."""
        return "open a pseudo-terminal, bind it on /dev/console"

    def apply(self, context: Context) -> None:
        """Open it and bind its slave."""
        pts = os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = open_pty_in(pts)
        os.close(pts)
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        kernel_mount.mount(slave, "/dev/console", flags=const.MS_BIND)
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
