"""The kernel's API file systems inside: /proc, /sys, cgroup2, /run, /tmp, and what they hide.

What must be there is systemd's "Container Interface" and "API File Systems".
"""

from __future__ import annotations

import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_BIND = const.MS_BIND
_SEALED = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC
# What of sysfs describes devices and the kernel; /sys/firmware, /sys/power, … stay away.
_SYSFS_PARTS = ("block", "bus", "class", "dev", "devices", "kernel")


class MountFileSystem(Step):
    """Mount a file system of the machine's own."""

    name = "mount"
    man = "mount(2)"

    fstype: str
    target: str
    flags: int = 0
    data: str = ""
    optional: bool = False  # a kernel without it still runs machines

    def label(self) -> str:
        """Return the step's own name."""
        return f"mount {self.target}"

    def describe(self) -> str:
        """Return the act."""
        options = ",".join((*kernel_mount.flag_names(self.flags), *filter(None, [self.data])))
        return f"mount {self.fstype} on {self.target}" + (f" {options}" if options else "")

    def command(self) -> str:
        """Return the shell's way."""
        options = ",".join((*kernel_mount.flag_names(self.flags), *filter(None, [self.data])))
        option = f" -o {options}" if options else ""
        return f"mount -t {self.fstype}{option} {self.fstype} {self.target}"

    def apply(self, context: Context) -> None:
        """Mount it on a directory, made if the tree lacks it."""
        os.makedirs(self.target, mode=0o755, exist_ok=True)
        try:
            kernel_mount.mount(self.fstype, self.target, self.fstype, self.flags, self.data)
        except OSError:
            if not self.optional:
                raise


class MountSys(Step):
    """Show the parts of sysfs that describe devices, read-only, on a small tmpfs."""

    name = "mount-sys"
    man = "sysfs(5)"
    because = "/sys/firmware, /sys/power and the like are the host's business"

    made_outside: bool = False  # the sysfs comes as a detached mount; mounting one is denied

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of a sysfs made outside."""
        return ("sysfs",) if self.made_outside else ()

    def describe(self) -> str:
        """Return the act."""
        return f"mount tmpfs on /sys, bind {'|'.join(_SYSFS_PARTS)} of a sysfs read-only"

    def command(self) -> str:
        """Return the shell's way."""
        return "mount -t tmpfs tmpfs /sys && mount -t sysfs -o ro sysfs /sys/full && …"

    def apply(self, context: Context) -> None:
        """Build it; fs/cgroup stays as a place to mount on."""
        os.makedirs("/sys", exist_ok=True)
        kernel_mount.mount("tmpfs", "/sys", "tmpfs", _SEALED, "mode=0555,size=4m,nr_inodes=1k")
        os.mkdir("/sys/full")
        if self.made_outside:
            _attach(context.number("sysfs"), "/sys/full")
        else:
            kernel_mount.mount("sysfs", "/sys/full", "sysfs", _SEALED | const.MS_RDONLY)
        for part in _SYSFS_PARTS:
            if os.path.isdir(f"/sys/full/{part}"):
                os.mkdir(f"/sys/{part}")
                kernel_mount.mount(f"/sys/full/{part}", f"/sys/{part}", flags=_BIND)
                kernel_mount.set_attributes(f"/sys/{part}", const.MOUNT_ATTR_RDONLY)
        # Detached: who made it outside may not have closed it yet.
        kernel_mount.umount2("/sys/full", const.MNT_DETACH)
        os.rmdir("/sys/full")
        os.makedirs("/sys/fs/cgroup", 0o755)


def _attach(tree: int, target: str) -> None:
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel_mount.move_mount(tree, place)
    os.close(place)
    os.close(tree)


class ProtectProc(Step):
    """Make paths of /proc that change the host read-only, and those that reveal it unreadable."""

    name = "protect-proc"
    man = "proc(5)"
    because = "after /run/host, whose inaccessible file is bound over the hidden ones"

    read_only: tuple[str, ...]
    writable: tuple[str, ...]
    hidden: tuple[str, ...]

    def describe(self) -> str:
        """Return the act."""
        writable = f", writable {', '.join(self.writable)}" if self.writable else ""
        return f"read-only {', '.join(self.read_only)}{writable}; hide {', '.join(self.hidden)}"

    def command(self) -> str:
        """Return the shell's way."""
        return "mount --bind -o ro /proc/sys /proc/sys …"

    def apply(self, context: Context) -> None:
        """Bind each on itself with its flags; what this kernel lacks needs no hiding."""
        for path in self.writable + self.read_only:
            # The writable ones first: bound before their parent turns read-only, then kept.
            if os.path.exists(path):
                kernel_mount.mount(path, path, flags=_BIND | const.MS_REC)
        for path in self.read_only:
            if os.path.exists(path):
                recursive = not any(kept.startswith(f"{path}/") for kept in self.writable)
                kernel_mount.set_attributes(
                    path,
                    const.MOUNT_ATTR_RDONLY
                    | const.MOUNT_ATTR_NOSUID
                    | const.MOUNT_ATTR_NODEV
                    | const.MOUNT_ATTR_NOEXEC,
                    recursive=recursive,
                )
        for path in self.hidden:
            if os.path.exists(path):
                kernel_mount.mount("/run/host/inaccessible/reg", path, flags=_BIND)
                kernel_mount.set_attributes(path, const.MOUNT_ATTR_RDONLY)


class OwnBootId(Step):
    """Give the machine a boot ID of its own, as each start of it is a boot."""

    name = "own-boot-id"
    man = "proc_sys_kernel(5)"
    because = "journald and others tell boots apart by it"

    def describe(self) -> str:
        """Return the act."""
        return "bind a random UUID over /proc/sys/kernel/random/boot_id"

    def apply(self, context: Context) -> None:
        """Bind a file that has no name any more."""
        aside = "/run/proc-sys-kernel-random-boot-id"
        with open("/proc/sys/kernel/random/uuid", "rb") as source:
            text = source.read()
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        os.write(fd, text)
        os.close(fd)
        target = "/proc/sys/kernel/random/boot_id"
        kernel_mount.mount(aside, target, flags=_BIND)
        kernel_mount.set_attributes(
            target,
            const.MOUNT_ATTR_RDONLY
            | const.MOUNT_ATTR_NOSUID
            | const.MOUNT_ATTR_NODEV
            | const.MOUNT_ATTR_NOEXEC,
        )
        os.unlink(aside)


class OwnKmsg(Step):
    """Put a pipe in the place of the kernel's log, which stays the host's."""

    name = "own-kmsg"
    man = "proc_kmsg(5)"
    because = "a log daemon inside would take away what the host's should read"
    gives = ("kmsg",)

    def describe(self) -> str:
        """Return the act."""
        return "bind a fifo over /proc/kmsg"

    def apply(self, context: Context) -> None:
        """Bind it; its writing end is kept open, or readers would be woken for nothing."""
        aside = "/run/kmsg"
        os.mkfifo(aside, 0o600)
        kernel_mount.mount(aside, "/proc/kmsg", flags=_BIND)
        context.give("kmsg", os.open(aside, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        os.unlink(aside)


class FillRunHost(Step):
    """Tell in /run/host who manages the machine, as the "Container Interface" has it."""

    name = "fill-run-host"
    man = "https://systemd.io/CONTAINER_INTERFACE"
    because = "before what binds its inaccessible nodes, and before it turns read-only"
    takes = ("notify",)

    machine_id: str
    service: str

    def describe(self) -> str:
        """Return the act."""
        names = "container-manager,container-uuid,inaccessible,incoming,notify,unix-export"
        return f"make /run/host/{{{names}}}"

    def apply(self, context: Context) -> None:
        """Make the files, the inaccessible nodes, and the notify socket's name."""
        import _socket

        base = "/run/host"
        _write(f"{base}/container-manager", f"{self.service}\n")
        dashed = "-".join(self.machine_id[a:b] for a, b in UUID_PARTS)
        _write(f"{base}/container-uuid", f"{dashed}\n")
        os.mkdir(f"{base}/incoming", 0o600)
        os.mkdir(f"{base}/unix-export", 0o755)
        os.mkdir(f"{base}/inaccessible", 0o755)
        os.mkdir(f"{base}/inaccessible/dir", 0o000)
        for name, kind in _NODES:
            try:
                os.mknod(f"{base}/inaccessible/{name}", kind, 0)
            except PermissionError:  # those of devices; systemd inside does without them
                if kind not in (_S_IFCHR, _S_IFBLK):
                    raise
        os.chmod(f"{base}/inaccessible", 0o555)
        notify = _socket.socket(fileno=context.number("notify"))
        notify.bind(f"{base}/notify")
        notify.detach()
        os.chmod(f"{base}/notify", 0o200)  # of others than root nothing would be believed


UUID_PARTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
_S_IFIFO, _S_IFCHR, _S_IFBLK, _S_IFREG, _S_IFSOCK = 0o10000, 0o20000, 0o60000, 0o100000, 0o140000
_NODES = (
    ("reg", _S_IFREG),
    ("fifo", _S_IFIFO),
    ("sock", _S_IFSOCK),
    ("chr", _S_IFCHR),
    ("blk", _S_IFBLK),
)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    os.write(fd, text.encode())
    os.close(fd)
