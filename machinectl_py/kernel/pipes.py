"""Pipes that processes of other users are given; pipe(7)."""

from __future__ import annotations

import os
import stat

_READABLE, _WRITABLE = 0o044, 0o022


def share_pipes(stdio: tuple[int, int, int]) -> None:
    """Let whoever is given these open them anew, as /dev/stdin, /dev/stdout and /dev/stderr.

    A pipe belongs to who made it, who is nobody in a user namespace. Only by mode, and only the
    way it is given: its owner could also read what others write to it. All but pipes is left.

    Args:
        stdio: standard input, output and error.

    Raises:
        OSError: as fchmod(2).
    """
    for fd, mode in zip(stdio, (_READABLE, _WRITABLE, _WRITABLE), strict=True):
        try:
            anonymous = os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
        except FileNotFoundError:  # closed
            continue
        if anonymous:
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | mode)
