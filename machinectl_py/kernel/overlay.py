"""Overlays of many layers as detached mounts, with ids mapped if need be; overlayfs.

Overlayfs takes layers by path, in older kernels only such as are mounted in the caller's mount
namespace, and fsconfig(2) takes no more than 255 characters of them. So a short-lived child
mounts them side by side under short names in a namespace of its own, and an overlay of these.
"""

from __future__ import annotations

import errno
import os
import struct

from machinectl_py.kernel import const, idmap
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.libc import check, libc, raise_errno
from machinectl_py.kernel.namespaces import clone3, in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from machinectl_py.kernel.idmap import IdMaps

_ANSWER = struct.Struct("ii")  # a descriptor or -1, an errno
_SCRATCH = "/sys"  # there on every host; covered in the child's namespace alone
_OPTIONS = "index=off,metacopy=off"
_SECBIT_NO_SETUID_FIXUP = 1 << 2  # <linux/securebits.h>
_PR_SET_SECUREBITS = 28


def mount_layers(
    lower: tuple[str | int, ...],
    layer: str = "",
    *,
    maps: IdMaps | None = None,
    owner: int = 0,
    attributes: int = 0,
) -> int:
    """Return a detached mount of an overlay, as a descriptor, close-on-exec.

    Args:
        lower: directories, the topmost first; or descriptors of detached mounts, which are
            used up.
        layer: a directory with `upper` and `work`; "" makes an overlay that is read-only.
        maps: as the layers' ids shall be seen, and what is written be stored; an overlay itself
            cannot be mapped.
        owner: with maps, the id that 0 is seen as.
        attributes: MOUNT_ATTR_ flags of the mount.

    Raises:
        OSError: with errno and what failed: EINVAL, the file system cannot hold an upper layer,
            or too many lower ones; ELOOP, a layer lies in another; ENOSPC, its disk is full.
    """
    namespace = idmap.make_user_namespace(maps) if maps else -1
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        # It shares our descriptors, and so gives us the mount's.
        pid, pidfd = clone3(const.CLONE_FILES | const.CLONE_NEWNS)
        if pid == 0:
            _make_for_parent(lower, layer, namespace, owner=owner, attributes=attributes, tell=tell)
        os.waitpid(pid, 0)
        os.close(pidfd)
        os.close(tell)
        tell = -1
        answer = os.read(told, _ANSWER.size + 4096)
    finally:
        for fd in (told, tell, namespace):
            if fd >= 0:
                os.close(fd)
    if len(answer) < _ANSWER.size:
        raise_errno(10, "mount overlay", layer)  # ECHILD: it was killed
    tree, number = _ANSWER.unpack_from(answer)
    if number:
        text = answer[_ANSWER.size :].decode(errors="surrogateescape")
        raise_errno(number, "mount overlay", text or layer)
    return int(tree)


def _make_for_parent(
    lower: tuple[str | int, ...],
    layer: str,
    namespace: int,
    *,
    owner: int,
    attributes: int,
    tell: int,
) -> NoReturn:
    """Tell the descriptor, or an errno and what it is about."""
    opened: list[int] = []
    try:
        kernel_mount.mount("", "/", flags=const.MS_PRIVATE | const.MS_REC)
        trees = [
            part if isinstance(part, int) else _open(part, namespace, opened) for part in lower
        ]
        if layer:
            trees.append(_open(layer, namespace, opened))
        kernel_mount.mount("tmpfs", _SCRATCH, "tmpfs")
        os.chdir(_SCRATCH)
        for number, tree in enumerate(trees):
            _attach(tree, str(number))
        _mount(len(lower), bool(layer), owner)
        tree = kernel_mount.open_tree("m", recursive=False)
        opened.append(tree)
        kernel_mount.set_attributes(tree, attributes, propagation=const.MS_PRIVATE)
        opened.remove(tree)
        os.write(tell, _ANSWER.pack(tree, 0))
    except OSError as error:
        about = error.filename if str(error.filename).startswith("/") else ""
        os.write(tell, _ANSWER.pack(-1, error.errno or 5) + os.fsencode(about))
    finally:
        for fd in opened:
            os.close(fd)
        os._exit(0)


def _open(path: str, namespace: int, opened: list[int]) -> int:
    tree = kernel_mount.open_tree(path, recursive=False)
    opened.append(tree)
    if namespace >= 0:
        idmap.set_idmap(tree, namespace)
    return tree


def _attach(tree: int, name: str) -> None:
    os.mkdir(name, 0o700)
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel_mount.move_mount(tree, place)
    finally:
        os.close(place)


def _mount(count: int, writable: bool, owner: int) -> None:
    """Mount the overlay of the layers 0 to count - 1, and of `count` if it is writable."""
    data = f"lowerdir={':'.join(map(str, range(count)))},{_OPTIONS}"
    if writable:
        data += f",upperdir={count}/upper,workdir={count}/work"
    if in_user_namespace():
        # trusted.overlay.* are denied, and overlayfs notes no renamed directory in user.overlay.*.
        data += ",userxattr"
    elif writable:
        # Renamed directories are noted, in the place of an EXDEV that few programs expect.
        data += ",redirect_dir=on"
    else:
        data += ",redirect_dir=follow"
    os.mkdir("m", 0o755)
    if owner:
        # Overlayfs makes files as who mounted it, whose ids must be among those mapped.
        check(libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl")
        libc.setfsgid(owner)
        libc.setfsuid(owner)
    kernel_mount.mount("overlay", "m", "overlay", 0, data)
    if writable:
        _refuse_read_only(str(count))
    if owner:
        libc.setfsuid(0)
        libc.setfsgid(0)


def _refuse_read_only(layer: str) -> None:
    """Refuse an overlay that could not prepare its work directory: the kernel then only reads."""
    if not os.statvfs("m").f_flag & os.ST_RDONLY:
        return
    os.mkdir(f"{layer}/work/try", 0o700)  # says why
    os.rmdir(f"{layer}/work/try")
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
