"""What the machine's /etc takes over from the host: resolv.conf(5) and localtime(5).

All of it is a service to the machine: where its root does not let us, it starts all the same.
"""

from __future__ import annotations

import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

LOCALTIME = "/etc/localtime"
_ZONES = "/usr/share/zoneinfo"
_S_IFMT, _S_IFREG = 0o170000, 0o100000  # <sys/stat.h>
_NOT_OURS = const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV
# A read-only root, or one where another program keeps the file behind a link, means it so.
_MEANT = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP)


class CloneFile(Step):
    """Take a detached copy of the mount of a host's file, which may be missing."""

    name = "clone-file"
    place = "supervisor"
    man = "open_tree(2)"
    because = "before the birth: inside, no path of the host leads anywhere"

    source: str

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.source}"

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {self.source}, if it is there"

    def given_slots(self) -> tuple[str, ...]:
        """Return the slot, named by the source."""
        return (f"file:{self.source}",)

    def apply(self, context: Context) -> None:
        """Clone it; -1 if there is none."""
        try:
            tree = kernel_mount.open_slave_tree(self.source, recursive=False)
        except FileNotFoundError:
            tree = -1
        context.give(self.given_slots()[0], tree)


class _PutFile(Step):
    """Bring a host's file to a place in /etc."""

    man = "openat2(2)"
    because = "after the custom mounts, which may have put another /etc there"

    source: str
    target: str  # in /etc

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slot of the file."""
        return (f"file:{self.source}",)

    def apply(self, context: Context) -> None:
        """Put it there, or go on."""
        tree = context.number(self.needed_slots()[0])
        try:
            if tree < 0:
                raise FileNotFoundError(errno.ENOENT, "No such file on the host", self.source)
            self._put(tree)
        except OSError as error:
            pass_over(context, error, self.target)
        if tree >= 0:
            os.close(tree)

    def _put(self, tree: int) -> None:
        raise NotImplementedError


class CopyFile(_PutFile):
    """Copy a host's file into /etc."""

    name = "copy-file"

    replace_link: bool = False  # what stands there is replaced, also a link

    def describe(self) -> str:
        """Return the act."""
        over = ", replacing what is there" if self.replace_link else ", unless a link is there"
        return f"copy {self.source} of the host to {self.target}{over}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"cp {self.source} {self.target}"

    def _put(self, tree: int) -> None:
        _copy(tree, self.target, self.replace_link)


class BindFile(_PutFile):
    """Bind a host's file on a place in /etc, read-only; copy it where that cannot be."""

    name = "bind-file"
    man = "move_mount(2)"

    follow: bool = False  # a link there is followed, inside the root

    def describe(self) -> str:
        """Return the act."""
        return f"bind {self.source} of the host on {self.target} read-only"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --bind -o ro {self.source} {self.target}"

    def _put(self, tree: int) -> None:
        try:
            _bind(tree, self.target, self.follow)
        except OSError:
            _copy(tree, self.target, self.follow)


class RemoveFile(Step):
    """Remove a file of /etc that the host has not either."""

    name = "remove-file"
    man = "unlink(2)"
    because = "after the custom mounts, which may have put another /etc there"

    target: str

    def label(self) -> str:
        """Return the step's own name."""
        return f"{self.name} {self.target}"

    def describe(self) -> str:
        """Return the act."""
        return f"remove {self.target}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"rm -f {self.target}"

    def apply(self, context: Context) -> None:
        """Remove it, or go on."""
        try:
            parent, name = _parent(self.target)
            try:
                os.unlink(name, dir_fd=parent)
            finally:
                os.close(parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            pass_over(context, error, self.target)


class LinkTimezone(_PutFile):
    """Link /etc/localtime to the host's time zone, if the machine knows it; else bind the file."""

    name = "link-timezone"
    man = "localtime(5)"

    zone: str  # as in "Europe/Berlin"

    def describe(self) -> str:
        """Return the act."""
        return f"link {self.target} to the time zone {self.zone or 'of the host'}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"ln -sf ..{_ZONES}/{self.zone} {self.target}"

    def apply(self, context: Context) -> None:
        """Link it, unless the host's own link tells no zone."""
        if not self.zone:
            context.warn(f"{LOCALTIME} of the host is no link into {_ZONES}; the machine keeps its")
            return
        super().apply(context)

    def _put(self, tree: int) -> None:
        try:
            os.close(open_in_root("/", f"{_ZONES}/{self.zone}", os.O_PATH))
        except OSError:
            try:
                _bind(tree, self.target, follow=True)
            except OSError:
                _copy(tree, self.target, replace=True)
            return
        parent, name = _parent(self.target)
        try:
            self._link(parent, name)
        finally:
            os.close(parent)

    def _link(self, parent: int, name: str) -> None:
        try:
            if zone_of(os.readlink(name, dir_fd=parent)) == self.zone:
                return
        except OSError:  # missing, or no link
            pass
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        os.symlink(f"..{_ZONES}/{self.zone}", name, dir_fd=parent)


def zone_of(link: str) -> str:
    """Return the time zone that a link to a file of zones names; "" if it is no such link."""
    for start in (f"..{_ZONES}/", f"{_ZONES}/"):
        if link.startswith(start):
            return link.removeprefix(start)
    return ""


def pass_over(context: Context, error: OSError, target: str) -> None:
    """Tell of a file that cannot be put there, unless the root means it so."""
    if error.errno not in _MEANT:
        context.warn(f"{target} stays as it is: {error.strerror}")


def _parent(path: str) -> tuple[int, str]:
    """Return the directory of a path, resolved in the root, and the name in it."""
    directory, _, name = path.rpartition("/")
    return open_in_root("/", directory, os.O_PATH | os.O_DIRECTORY), name


def _copy(tree: int, target: str, replace: bool) -> None:
    """Copy what the detached mount `tree` holds.

    Raises:
        OSError: ELOOP, a link is there and is not to be replaced; EINVAL, no regular file.
    """
    parent, name = _parent(target)
    try:
        with open(os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC), "rb") as source:
            text = source.read()
        if not replace:
            _write(_open_regular(parent, name), text)
            return
        aside = f".#{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        _write(os.open(aside, flags, 0o644, dir_fd=parent), text)
        os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def _open_regular(parent: int, name: str) -> int:
    """Open a regular file to be written anew, made if there is none.

    Looked at before it is opened: the root's author could have put a device there.
    """
    create = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, create, 0o644, dir_fd=parent)
    except FileExistsError:
        pass
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        kind = os.fstat(handle).st_mode & _S_IFMT
        if kind != _S_IFREG:
            number = errno.ELOOP if kind == 0o120000 else errno.EINVAL
            raise OSError(number, os.strerror(number), name)
        return os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    finally:
        os.close(handle)


def write_regular(path: str, text: bytes) -> None:
    """Write a regular file of the root, made if there is none.

    Raises:
        OSError: ELOOP, a link is there; EINVAL, something else; EROFS.
    """
    parent, name = _parent(path)
    try:
        _write(_open_regular(parent, name), text)
    finally:
        os.close(parent)


def _write(fd: int, text: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(text)
        os.fchown(fd, 0, 0)


def bind_tree(tree: int, target: str) -> None:
    """Attach the detached mount `tree` on a file, read-only.

    Raises:
        OSError: there is a link, or the root refuses.
    """
    _bind(tree, target, follow=False)


def _bind(tree: int, target: str, follow: bool) -> None:
    """Attach the detached mount `tree`; a missing target is made."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    last = 0 if follow else os.O_NOFOLLOW
    try:
        try:
            place = open_in_root(root, target, os.O_PATH | last)
        except FileNotFoundError:
            create = os.O_WRONLY | os.O_CREAT | last
            os.close(open_in_root(root, target, create, 0o644))
            place = open_in_root(root, target, os.O_PATH | last)
    finally:
        os.close(root)
    try:
        kernel_mount.set_attributes(tree, _NOT_OURS, recursive=False)
        kernel_mount.move_mount(tree, place)
    finally:
        os.close(place)
