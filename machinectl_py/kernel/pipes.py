"""Pipes that processes of other users are given; pipe(7)."""

from __future__ import annotations

import os
import stat

_READABLE, _WRITABLE = 0o044, 0o022


def share_pipes(stdio: tuple[int, int, int]) -> None:
    """Let whoever is given these open them anew, as /dev/stdin, /dev/stdout and /dev/stderr.

    A pipe belongs to who made it, who is nobody in a user namespace. Only by mode, and only the
    way it is given: its owner could also read what others write to it. All but pipes is left, and
    pipes of who is nobody to us, as in a machine those of its host are.

    Args:
        stdio: standard input, output and error.
    """
    for fd, mode in zip(stdio, (_READABLE, _WRITABLE, _WRITABLE), strict=True):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | mode)
        except (FileNotFoundError, PermissionError):  # closed; not ours
            continue
