"""A look into a disk image: its root mounted read-only, nowhere, for as long as one looks."""

from __future__ import annotations

import _socket
import os
import struct

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel import const, loop, namespaces
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.filesystem import make_filesystem, no_recovery
from machinectl_py.kernel.idmap import try_idmap
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.dissect import Disk, Partition

_ATTRIBUTES = (
    const.MOUNT_ATTR_RDONLY
    | const.MOUNT_ATTR_NODEV
    | const.MOUNT_ATTR_NOSUID
    | const.MOUNT_ATTR_NOEXEC
)
_INT = struct.Struct("i")
_ENODEV = 19
_CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC of <sys/socket.h>


class View(Record):
    """A look into an image."""

    tree: int  # descriptor of a detached mount: the root with its /usr
    unmappable: str = ""  # the file systems, and where, of which no ids can be mapped


def open_view(image: int, disk: Disk, *, ids: bool = False, writable: bool = False) -> View:
    """Return a detached mount of an image's root with its /usr; gone when it is closed.

    Nothing is written to the image, not even from the journal of a file system that was not
    unmounted; dm-verity is not asked, so what is seen is no more than a hint.

    Args:
        image: descriptor of the image, readable.
        disk: what is on it.
        ids: try whether ids can be mapped.
        writable: let what is seen be changed, in the image.

    Raises:
        ConfigError: the kernel cannot make sense of the file system.
        UnsupportedError: this kernel has no loop devices, or not that file system.
    """
    root, usr = disk.find("root"), disk.find("usr")
    unmappable = ""
    if root is not None:
        tree = _mount(image, root, disk.sector_size, writable=writable)
        unmappable = _why_unmappable(tree, root) if ids else ""
    else:
        tree = make_filesystem("tmpfs", (("mode", "0755"),), _ATTRIBUTES & ~const.MOUNT_ATTR_RDONLY)
        os.mkdir(f"/proc/self/fd/{tree}/usr")
    if usr is None:
        return View(tree=tree, unmappable=unmappable)
    below = _mount(image, usr, disk.sector_size)
    try:
        if ids and not unmappable:
            unmappable = _why_unmappable(below, usr)
        return View(tree=_joined(tree, below), unmappable=unmappable)
    finally:
        os.close(tree)
        os.close(below)


def _why_unmappable(tree: int, partition: Partition) -> str:
    where = f"{partition.fstype} of its partition '{partition.designator}'"
    return "" if try_idmap(tree) else where


def _mount(image: int, partition: Partition, sector_size: int, *, writable: bool = False) -> int:
    try:
        device = loop.attach_loop(
            image,
            offset=partition.offset,
            size=partition.size,
            read_only=not writable,
            block_size=sector_size,
        )
    except FileNotFoundError as error:
        raise UnsupportedError(
            f"This host has no loop devices: {error.filename} is missing",
            "'modprobe loop' loads their driver; a container is given them by its host.",
        ) from error
    options: tuple[tuple[str, str], ...] = (("source", loop.device_path(device)),)
    attributes = _ATTRIBUTES
    if writable:
        attributes &= ~const.MOUNT_ATTR_RDONLY
    else:
        options = (*options, ("ro", ""), *no_recovery(partition.fstype))
    try:
        return make_filesystem(partition.fstype, options, attributes)
    except OSError as error:
        if error.errno == _ENODEV:
            raise UnsupportedError(
                f"This kernel has no file system '{partition.fstype}'"
            ) from error
        raise ConfigError(
            f"The {partition.fstype} of its partition '{partition.designator}' cannot be mounted:"
            f" {os.strerror(error.errno or 0)}",
            "The kernel's log tells why.",
        ) from error
    finally:
        os.close(device)


def _joined(tree: int, usr: int) -> int:
    """Return a detached copy of `tree` with `usr` mounted on its /usr.

    Older kernels attach nothing to what is itself detached, so a child does it in a mount
    namespace of its own and hands the whole over.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            whole = _join(tree, usr)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _INT.pack(whole))]
            theirs.sendmsg([b"+"], rights)
            os._exit(0)
        except OSError as error:
            theirs.send(str(error).encode())
        finally:
            os._exit(1)
    theirs.close()
    data, ancillary, _, _ = ours.recvmsg(4096, _socket.CMSG_SPACE(_INT.size), _CLOEXEC)
    ours.close()
    os.waitpid(pid, 0)
    if not ancillary:
        raise ConfigError(f"Its /usr cannot be mounted: {data.decode(errors='replace')}")
    return int(_INT.unpack(ancillary[0][2][: _INT.size])[0])


def _join(tree: int, usr: int) -> int:
    namespaces.unshare(const.CLONE_NEWNS)
    kernel_mount.mount("", "/", flags=const.MS_PRIVATE | const.MS_REC)
    place = os.open("/proc", os.O_PATH | os.O_DIRECTORY)  # covered in this namespace alone
    kernel_mount.move_mount(tree, place)
    root = os.open(".", os.O_PATH | os.O_DIRECTORY, dir_fd=tree)
    target = open_in_root(root, "/usr", os.O_PATH | os.O_DIRECTORY)
    kernel_mount.move_mount(usr, target)
    return kernel_mount.open_tree("/proc", recursive=True)
