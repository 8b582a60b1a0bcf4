"""Where a machine puts sockets for the host: `ssh machine/NAME`; systemd-ssh-proxy(1)."""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.layout import unix_export_dir
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

INSIDE = "/run/host/unix-export"
_FLAGS = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC | const.MS_NOSYMFOLLOW
_OPTIONS = "size=4m,nr_inodes=64,mode=0755"


class MountUnixExport(Step):
    """Mount the small file system that host and machine share for sockets."""

    name = "mount-unix-export"
    place = "launcher"
    man = "https://systemd.io/CONTAINER_INTERFACE"
    because = "before the machine's mount namespace, which clones it"
    lifetime = "host"
    takes = ("lock",)

    machine: str

    def describe(self) -> str:
        """Return the act; no link that the machine may plant is followed on the host."""
        options = ",".join((*kernel_mount.flag_names(_FLAGS), _OPTIONS))
        return f"mount tmpfs on {unix_export_dir(self.machine)} {options}"

    def command(self) -> str:
        """Return the shell's way."""
        options = ",".join((*kernel_mount.flag_names(_FLAGS), _OPTIONS))
        return f"mount -t tmpfs -o {options} tmpfs {unix_export_dir(self.machine)}"

    def apply(self, context: Context) -> None:
        """Mount it, on what a killed machine of that name may have left."""
        path = unix_export_dir(self.machine)
        os.makedirs(path, 0o755, exist_ok=True)
        kernel_mount.mount("tmpfs", path, "tmpfs", _FLAGS, _OPTIONS)

    def undo(self, context: Context) -> None:
        """Unmount it and remove its directory."""
        path = unix_export_dir(self.machine)
        try:
            kernel_mount.unmount_all(path)
            os.rmdir(path)
        except FileNotFoundError:
            pass
