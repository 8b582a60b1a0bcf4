"""The machine's resolv.conf(5), of a managed network."""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.host_files import bind_tree, pass_over, write_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

RESOLV_CONF = "/etc/resolv.conf"
RESOLVED_CONF = "/run/systemd/resolved.conf.d/pymachine.conf"
_ASIDE = "/run/.pymachine-resolv.conf"


def resolv_conf(servers: tuple[str, ...], domains: tuple[str, ...]) -> bytes:
    """Return the file for a machine; an empty one without servers."""
    if not servers:
        return b""
    lines = (f"search {' '.join(domains)}", *(f"nameserver {server}" for server in servers))
    return "".join(f"{line}\n" for line in lines).encode()


def resolved_conf(servers: tuple[str, ...], domains: tuple[str, ...]) -> bytes:
    """Return the drop-in for a machine's systemd-resolved; an empty one without servers."""
    if not servers:
        return b""
    return f"[Resolve]\nDNS={' '.join(servers)}\nDomains={' '.join(domains)}\n".encode()


def renew_resolver(root: str, before: bytes, after: bytes, owner: int) -> None:
    """Write the file of a machine that runs, unless it is not ours: neither missing nor as before.

    Args:
        root: of the machine, as in /proc/PID/root.
        before: what we wrote last.
        after: what it shall hold.
        owner: the host's id of root inside.

    Raises:
        OSError: it cannot be written.
    """
    try:
        fd = open_in_root(root, RESOLV_CONF, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = open_in_root(root, RESOLV_CONF, flags, 0o644)
        os.fchown(fd, owner, owner)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EROFS):  # another's, or a read-only root
            return
        raise
    with open(fd, "r+b") as file:
        ours = (b"", before)
        if stat.S_ISREG(os.fstat(fd).st_mode) and file.read(len(before) + 1) in ours:
            file.seek(0)
            file.truncate()
            file.write(after)


class WriteResolver(Step):
    """Have the machine ask the network's resolver."""

    name = "write-resolver"
    man = "resolv.conf(5)"
    because = "after the custom mounts, which may have put another /etc there"

    servers: tuple[str, ...]
    domains: tuple[str, ...]  # that are looked in for names without a dot
    boots: bool  # an init, which may start systemd-resolved

    def describe(self) -> str:
        """Return the act."""
        return f"write nameserver {', '.join(self.servers)} to {RESOLV_CONF}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"echo nameserver {self.servers[0]} >{RESOLV_CONF}"

    def apply(self, context: Context) -> None:
        """Write it, or go on: it is a service to the machine."""
        try:
            _put(resolv_conf(self.servers, self.domains))
            if self.boots:
                _make(RESOLVED_CONF, resolved_conf(self.servers, self.domains))
        except OSError as error:
            pass_over(context, error, RESOLV_CONF)


def _put(text: bytes) -> None:
    try:
        write_regular(RESOLV_CONF, text)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link: into our own /run it is followed
            target = os.path.normpath(os.path.join("/etc", os.readlink(RESOLV_CONF)))
            if target.startswith("/run/"):
                _make(target, text)
        elif error.errno == errno.EROFS:
            _cover(text)
        else:
            raise


def _make(path: str, text: bytes) -> None:
    """Write a file in /run, which is our own still; PID 1 has not begun."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    write_regular(path, text)


def _cover(text: bytes) -> None:
    """Bind a file over the one of a read-only root."""
    write_regular(_ASIDE, text)
    try:
        tree = kernel_mount.open_tree(_ASIDE, recursive=False)
        try:
            os.close(open_in_root("/", RESOLV_CONF, os.O_PATH | os.O_NOFOLLOW))
            bind_tree(tree, RESOLV_CONF)
        finally:
            os.close(tree)
    finally:
        os.unlink(_ASIDE)
