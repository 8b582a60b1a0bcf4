"""What a process hears of a locker that cannot help it; the locks themselves: test_users.py."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from machinectl_py.kernel.mount_locks import lock_mounts, start_locker
from machinectl_py.kernel.process import pidfd_open


def test_a_locker_that_was_killed_is_told():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    fd = ours.detach()
    with pytest.raises(OSError, match="unshare") as caught:
        lock_mounts(fd)
    assert caught.value.errno == errno.ECHILD
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_errno_of_a_locker_is_ours():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(struct.pack("i", errno.ENOSPC))
    with pytest.raises(OSError, match="unshare") as caught:
        lock_mounts(ours.detach())
    assert caught.value.errno == errno.ENOSPC
    theirs.close()


def test_a_locker_ends_when_nobody_can_ask_it_any_more():
    pidfd = pidfd_open(os.getpid())
    before = len(os.listdir("/proc/self/fd"))
    pid, locker = start_locker(pidfd)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    os.close(locker)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(pidfd)
