"""A directory tree moved from one range of 65536 ids to another.

The upper 16 bits of an id name the range, the lower ones the id in it. What is owned by an id is
not its files alone: ACLs name ids (acl(5)), and file capabilities the root they are valid for
(capabilities(7), "Namespaced file capabilities"). Compatible with systemd-nspawn's
--private-users-ownership=chown, down to the marker of a tree that was left half done.
"""

from __future__ import annotations

import errno
import os
import struct

from machinectl_py.kernel.procfs import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RANGE = 1 << 16
_LOW = RANGE - 1
BUSY_BASE = 0xFFFE0000  # no range begins here: the root of a tree that is being changed has it
_NO_ID = _LOW  # (uid_t) -1 of 16 bits: the same where the above is not mapped, in the tree's range

_S_IFMT, _S_IFDIR, _S_IFREG, _S_IFLNK = 0o170000, 0o040000, 0o100000, 0o120000  # <sys/stat.h>
_DEVICES = (0o020000, 0o060000)
_SET_ID_BITS = 0o6000
_ST_RDONLY = 1
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of the kernel's own making, or with owners that mean something else.
_LEFT_ALONE = frozenset(
    (
        *("binfmt_misc", "bpf", "cgroup", "cgroup2", "debugfs", "devpts", "efivarfs", "hugetlbfs"),
        *("mqueue", "proc", "pstore", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs"),
    )
)


def is_busy(uid: int) -> bool:
    """Say whether the owner of a tree's root marks that its change was interrupted."""
    return uid & ~_LOW == BUSY_BASE or uid & _LOW == _NO_ID


def range_of_tree(root: str) -> int | None:
    """Return the base of the range that a tree's root directory is owned by.

    Returns:
        None if its user and its group are of different ranges; `BUSY_BASE` if a change was
        interrupted.

    Raises:
        OSError: there is no such directory.
    """
    status = os.stat(root, follow_symlinks=False)
    base = status.st_uid & ~_LOW
    if is_busy(status.st_uid):
        return BUSY_BASE
    return base if status.st_gid & ~_LOW == base else None


def move_tree(root: str, base: int) -> int:
    """Give everything in a tree to the range at `base`; return how many files were changed.

    Interrupted, it can be called again, with another base too: the root directory is marked
    first and given its owner last, everything between is looked at one by one. File systems
    below that are read-only, or the kernel's own, are left as they are.

    Args:
        root: the directory.
        base: a multiple of 65536.

    Raises:
        OSError: with the path.
        ValueError: the base is none.
    """
    if base & _LOW or not 0 <= base < BUSY_BASE:
        raise ValueError(f"{base} is no base of a range of {RANGE} ids")
    if range_of_tree(root) == base:
        return 0
    fd = os.open(root, _OPEN)
    try:
        status = os.fstat(fd)
        _mark(fd, status)
    except OSError:
        os.close(fd)
        raise
    return _Mover(base).move(fd, status, root)


def _mark(fd: int, status: os.stat_result) -> None:
    """Give the root directory an owner that no tree has."""
    try:
        os.fchown(fd, BUSY_BASE | _low(status.st_uid), BUSY_BASE | _low(status.st_gid))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # In a user namespace that id is not mapped; user_namespaces(7).
        os.fchown(fd, status.st_uid | _NO_ID, status.st_gid | _NO_ID)


def _low(number: int) -> int:
    """Return the id in its range; root's of a directory that is marked otherwise."""
    return number & _LOW if number & _LOW != _NO_ID else 0


class _Mover:
    """The way through one tree; each directory on the way down is open."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.changed = 0
        self.stack: list[tuple[int, os.stat_result, Iterator[os.DirEntry[str]]]] = []

    def move(self, fd: int, status: os.stat_result, root: str) -> int:
        self.stack = [(fd, status, _entries(fd))]
        try:
            while self.stack:
                self._step()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path(root, error)) from error
        finally:
            for open_fd, _, _ in self.stack:
                os.close(open_fd)
        return self.changed

    def _path(self, root: str, error: OSError) -> str:
        above = os.readlink(f"/proc/self/fd/{self.stack[-1][0]}") if self.stack else root
        name = os.path.basename(str(error.filename or ""))
        return f"{above}/{name}".rstrip("/")

    def _step(self) -> None:
        """Handle the next entry of the directory that we are in, or leave it."""
        fd, status, entries = self.stack[-1]
        entry = next(entries, None)
        if entry is None:
            # After all that is in it: the owner of a tree's root says that all is done.
            self._give(fd, None, status)
            self.stack.pop()
            os.close(fd)
            return
        found = entry.stat(follow_symlinks=False)
        if found.st_mode & _S_IFMT != _S_IFDIR:
            self._give(fd, entry.name, found)
            return
        below = os.open(entry.name, _OPEN, dir_fd=fd)
        if found.st_dev != status.st_dev and _is_left_alone(below, found.st_dev):
            os.close(below)
            return
        self.stack.append((below, found, _entries(below)))

    def _give(self, directory: int, name: str | None, status: os.stat_result) -> None:
        """Change one file: `name` in the directory, or the directory itself."""
        kind = status.st_mode & _S_IFMT
        path = f"/proc/self/fd/{directory}" + (f"/{name}" if name is not None else "")
        uid = self.base | _low(status.st_uid)
        gid = self.base | _low(status.st_gid)
        changed = False
        if name is None:
            if (owner := os.fstat(directory)).st_uid != uid or owner.st_gid != gid:
                os.fchown(directory, uid, gid)
                changed = True
        elif status.st_uid != uid or status.st_gid != gid:
            try:
                self._chown(directory, name, status)
            except PermissionError:
                # To change one in an overlay's lower layer is to make it anew: mknod(2). In the
                # user namespace that this is for, no device on a disk can be opened anyway.
                if kind in _DEVICES:
                    return
                raise
            changed = True
        if kind != _S_IFLNK:
            for attribute in _ACLS if kind == _S_IFDIR else _ACLS[:1]:
                changed |= self._move_acl(path, attribute, follow=name is None)
        self.changed += changed

    def _chown(self, directory: int, name: str, status: os.stat_result) -> None:
        """Change the owner, and give back what the kernel then takes away; chown(2)."""
        path = f"/proc/self/fd/{directory}/{name}"
        uid = self.base | _low(status.st_uid)
        gid = self.base | _low(status.st_gid)
        regular = status.st_mode & _S_IFMT == _S_IFREG
        capabilities = _read_attribute(path, _CAPABILITY, follow=False) if regular else None
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        if regular and status.st_mode & _SET_ID_BITS:
            os.chmod(name, status.st_mode & 0o7777, dir_fd=directory)
        if capabilities is not None:
            moved = move_capabilities(capabilities, self.base)
            os.setxattr(path, _CAPABILITY, moved, follow_symlinks=False)

    def _move_acl(self, path: str, attribute: str, *, follow: bool) -> bool:
        value = _read_attribute(path, attribute, follow=follow)
        if value is None:
            return False
        moved = move_acl(value, self.base)
        if moved == value:
            return False
        os.setxattr(path, attribute, moved, follow_symlinks=follow)
        return True


def _entries(directory: int) -> Iterator[os.DirEntry[str]]:
    """Return what is in an open directory, all read by now: it costs no descriptor more."""
    with os.scandir(directory) as entries:
        return iter(list(entries))


_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_CAPABILITY = "security.capability"


def _read_attribute(path: str, name: str, *, follow: bool) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


_ACL_VERSION = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, id; <linux/posix_acl_xattr.h>
_ACL_USER, _ACL_GROUP = 0x02, 0x08


def move_acl(value: bytes, base: int) -> bytes:
    """Return an ACL, as an attribute has it, with the ids that it names moved to a range."""
    moved = bytearray(value)
    for offset in range(_ACL_VERSION.size, len(value) - _ACL_ENTRY.size + 1, _ACL_ENTRY.size):
        tag, permissions, number = _ACL_ENTRY.unpack_from(value, offset)
        if tag in (_ACL_USER, _ACL_GROUP):
            _ACL_ENTRY.pack_into(moved, offset, tag, permissions, base | number & _LOW)
    return bytes(moved)


_CAPABILITY_HEAD = struct.Struct("<I")  # revision in the upper 8 bits; <linux/capability.h>
_REVISION_MASK, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_REVISION_2_SIZE = 20


def move_capabilities(value: bytes, root: int) -> bytes:
    """Return file capabilities, as an attribute has them, valid where uid 0 is `root`."""
    (head,) = _CAPABILITY_HEAD.unpack_from(value)
    if head & _REVISION_MASK not in (_REVISION_2, _REVISION_3) or len(value) < _REVISION_2_SIZE:
        return value
    body = value[_CAPABILITY_HEAD.size : _REVISION_2_SIZE]
    revision = _REVISION_3 if root else _REVISION_2
    tail = root.to_bytes(4, "little") if root else b""
    return _CAPABILITY_HEAD.pack(head & ~_REVISION_MASK | revision) + body + tail


def _is_left_alone(directory: int, device: int) -> bool:
    """Say whether a file system below is read-only, or one whose owners are not to be changed."""
    if os.fstatvfs(directory).f_flag & _ST_RDONLY:
        return True
    number = f"{os.major(device)}:{os.minor(device)}"
    for mount in mountinfo("self"):
        if mount.device == number:
            return mount.fstype in _LEFT_ALONE
    return False  # a subvolume: its device is in no list of mounts
