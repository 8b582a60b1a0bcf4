"""Directories of another mount namespace, and mounts given to it; mount_namespaces(7).

The other namespace is joined by a child, so that this process keeps its root, its directory and
its modules. open_tree(2) copies mounts of the caller's own namespace only: the child makes that of
a private copy of the other's.
"""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.kernel import const
from machinectl_py.kernel.idmap import become_root
from machinectl_py.kernel.libc import raise_errno
from machinectl_py.kernel.mount import move_mount, open_tree
from machinectl_py.kernel.namespaces import setns, unshare
from machinectl_py.kernel.paths import make_in_root, open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def clone_directory(pidfd: int, path: str) -> int:
    """Return a detached copy of a directory, as a process there finds it, with mounts below it.

    Args:
        pidfd: of a process of the other namespace, whose root is the namespace's.
        path: of the directory; links in it stay inside.

    Raises:
        OSError: with errno and the path.
    """

    def work() -> int:
        setns(pidfd, const.CLONE_NEWNS)
        unshare(const.CLONE_NEWNS)
        os.fchdir(open_in_root("/", path, os.O_PATH | os.O_DIRECTORY))
        return open_tree(".")

    return _in_child(work, path)


def attach(pidfd: int, tree: int, path: str, *, flags: int, make: bool, directory: bool) -> None:
    """Attach a detached mount in another namespace.

    Args:
        pidfd: of a process there.
        tree: the mount.
        path: where; links in it stay inside.
        flags: of further namespaces to join, CLONE_NEWUSER for what belongs to another.
        make: make what is missing on the way, and the place itself.
        directory: whether the place is a directory, else a file.

    Raises:
        OSError: with errno and the path; ENOTDIR where one is a directory and one is not.
    """

    def work() -> int:
        setns(pidfd, const.CLONE_NEWNS | flags)
        if flags & const.CLONE_NEWUSER:
            become_root()
        os.umask(0o022)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if make:
            target = make_in_root(root, path, directory=directory)
        else:
            target = open_in_root(root, path, os.O_PATH)
        if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        move_mount(tree, target)
        return target

    os.close(_in_child(work, path))


def _in_child(work: Callable[[], int], path: str) -> int:
    """Return the descriptor that a child of ours has opened.

    Raises:
        OSError: as the child's, with the path.
    """
    import _socket
    import socket

    ours, theirs = socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            socket.send_fds(theirs, [b"0"], [work()])
        except OSError as error:
            theirs.send(str(error.errno or 0).encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        told, fds, _flags, _address = socket.recv_fds(ours, 16, 1)
    os.waitpid(pid, 0)
    if not fds:
        raise_errno(int(told or errno.EIO), "open_tree", path)
    os.set_inheritable(fds[0], False)
    return fds[0]
