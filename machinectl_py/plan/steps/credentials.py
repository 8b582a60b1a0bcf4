"""Credentials for the payload; systemd.exec(5), and systemd's "Container Interface"."""

from __future__ import annotations

import os

from machinectl_py.config.credentials import decode
from machinectl_py.config.spec import CredentialSpec
from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

CREDENTIALS_DIRECTORY = "/run/host/credentials"
_FLAGS = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC


class PlaceCredentials(Step):
    """Write the credentials, for root alone, where they are never swapped out."""

    name = "place-credentials"
    man = "systemd.exec(5)"
    because = "before /run/host turns read-only"

    credentials: tuple[CredentialSpec, ...]

    def describe(self) -> str:
        """Return the act, by names: the data are secret."""
        names = ", ".join(credential.name for credential in self.credentials)
        return f"mount a file system in memory on {CREDENTIALS_DIRECTORY}, write {names}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount -t ramfs -o mode=0700 ramfs {CREDENTIALS_DIRECTORY} && …"

    def apply(self, context: Context) -> None:
        """Mount, write, and make both mount and file system read-only."""
        place = CREDENTIALS_DIRECTORY
        os.mkdir(place, 0o700)
        try:
            options = "noswap,mode=0700,nr_inodes=1024,size=2m"
            kernel_mount.mount("tmpfs", place, "tmpfs", _FLAGS, options)  # Linux 6.4
        except OSError:
            kernel_mount.mount("ramfs", place, "ramfs", _FLAGS, "mode=0700")
        for credential in self.credentials:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(f"{place}/{credential.name}", flags, 0o400)
            data = decode(credential)
            while data:
                data = data[os.write(fd, data) :]
            os.close(fd)
        os.chmod(place, 0o500)
        kernel_mount.set_attributes(place, const.MOUNT_ATTR_RDONLY, recursive=False)
        remount = const.MS_REMOUNT | const.MS_RDONLY | _FLAGS
        kernel_mount.mount("", place, flags=remount)
