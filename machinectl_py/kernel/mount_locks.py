"""Locked mounts: what root of a user namespace can neither loosen nor take off.

The kernel locks mounts that come from a mount namespace of another user namespace: their flags,
and each to its place; mount_namespaces(7), "Restrictions on mount namespaces". What root of a user
namespace has mounted itself is not locked.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import os
import struct

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import raise_errno
from machinectl_py.kernel.namespaces import clone3, setns, unshare
from machinectl_py.kernel.process import close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INT = struct.Struct("i")


def start_locker(pidfd: int, cgroup: int = -1) -> tuple[int, int]:
    """Start a process that will copy the mount namespace of another, once that asks it to.

    Args:
        pidfd: of the other process, which is in a user namespace below ours that owns its mount
            namespace.
        cgroup: descriptor of a cgroup2 directory to start it in, or -1 for the caller's own.

    Returns:
        The PID of a child, which ends when it has done so or nobody can ask any more; and a
        socket for `lock_mounts`, close-on-exec.

    Raises:
        OSError: with errno and the call.
    """
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
    # By this, /proc is reached from another root and another PID namespace.
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        child, child_pidfd = clone3(0, cgroup)
        if child == 0:
            _serve(pidfd, proc, theirs)
        os.close(child_pidfd)
        return child, ours.detach()
    except OSError:
        ours.close()
        raise
    finally:
        os.close(proc)
        theirs.close()


def _serve(pidfd: int, proc: int, socket: _socket.socket) -> NoReturn:
    """Send the descriptor of the copy, or an errno."""
    try:
        # Those of the terminal's process group are not meant for us.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _close_all_but(pidfd, proc, socket.fileno())
        if socket.recv(1):
            copy = _INT.pack(_copy(pidfd, proc))
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, copy)
            socket.sendmsg([_INT.pack(0)], [rights], _socket.MSG_NOSIGNAL)
    except OSError as error:
        socket.send(_INT.pack(error.errno or errno.EIO), _socket.MSG_NOSIGNAL)
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    first = 0
    for fd in sorted(kept):
        if first < fd:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def _copy(pidfd: int, proc: int) -> int:
    """Return a copy, theirs, of a copy, ours, of their mount namespace."""
    setns(pidfd, const.CLONE_NEWNS)
    unshare(const.CLONE_NEWNS)
    setns(pidfd, const.CLONE_NEWUSER)
    unshare(const.CLONE_NEWNS)
    return os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)


def lock_mounts(locker: int) -> None:
    """Go on in a copy of our mount namespace in which all mounts are locked.

    Root and working directory are those of the copy then.

    Args:
        locker: socket to a `start_locker` of ours; it is closed.

    Raises:
        OSError: with errno and the call; ECHILD if the locker was killed.
    """
    socket = _socket.socket(fileno=locker)
    data = b""
    rights: list[tuple[int, int, bytes]] = []
    try:
        socket.send(b"\0", _socket.MSG_NOSIGNAL)
        space = _socket.CMSG_SPACE(_INT.size)
        data, rights, _, _ = socket.recvmsg(_INT.size, space, _socket.MSG_CMSG_CLOEXEC)
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        socket.close()
    if not rights:
        raise_errno(_INT.unpack(data)[0] if data else errno.ECHILD, "unshare", "CLONE_NEWNS")
    (copy,) = _INT.unpack(rights[0][2][: _INT.size])
    try:
        setns(copy, const.CLONE_NEWNS)
    finally:
        os.close(copy)
