"""The mount tunnel: by it a running machine is shown more of the host; `machinectl bind`.

What is mounted in a directory of the host propagates to /run/host/incoming, and is moved from
there to its place inside. The host's side is shared, as systemd makes all its mounts; the
machine's is its slave, so nothing goes back.
"""

from __future__ import annotations

import os
import stat

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.layout import TUNNELS_DIR, tunnel_dir
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

INCOMING = "/run/host/incoming"


class DigTunnel(Step):
    """Make the host's side of the mount tunnel."""

    name = "dig-tunnel"
    place = "launcher"
    man = "mount_namespaces(7)"
    because = "before the machine's mount namespace, which must hold the mount that it is on"
    lifetime = "host"
    takes = ("lock",)
    gives = ("tunnel",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"make the directory {tunnel_dir(self.machine)}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mkdir -p -m 600 {tunnel_dir(self.machine)}"

    def apply(self, context: Context) -> None:
        """Make it, and give its inode; what a killed systemd-nspawn left is used again."""
        os.makedirs(os.path.dirname(TUNNELS_DIR), 0o755, exist_ok=True)
        for path in (TUNNELS_DIR, tunnel_dir(self.machine)):
            try:
                os.mkdir(path, 0o600)
            except FileExistsError:
                pass
        context.give("tunnel", os.stat(tunnel_dir(self.machine)).st_ino)

    def undo(self, context: Context) -> None:
        """Remove it with what is left in it: mounts on the way, and what they were on."""
        path = tunnel_dir(self.machine)
        try:
            inode = os.stat(path, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return
        if context.slots.get("tunnel", inode) != inode:  # another machine's by now
            return
        for name in os.listdir(path):
            _remove(f"{path}/{name}")
        os.rmdir(path)


def _remove(path: str) -> None:
    """Remove an empty file or directory and what is mounted on it."""
    kernel_mount.unmount_all(path)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)


class OpenTunnel(Step):
    """Make the machine's side of the mount tunnel a slave of the host's, and no peer of others."""

    name = "open-tunnel"
    man = "mount_namespaces(7)"
    because = "after all mounts were shared: what arrives could not be moved out of a shared mount"

    def describe(self) -> str:
        """Return the act."""
        return f"make {INCOMING} slave"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --make-slave {INCOMING}"

    def apply(self, context: Context) -> None:
        """Change its propagation."""
        kernel_mount.mount("", INCOMING, flags=const.MS_SLAVE)
