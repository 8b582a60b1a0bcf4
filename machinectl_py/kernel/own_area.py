"""What /proc/self/cmdline and environ show: the top of the stack; prctl(2) PR_SET_MM."""

from __future__ import annotations

import ctypes

from machinectl_py.kernel.libc import libc

_PR_SET_MM = 35
_ARG_START, _ARG_END, _ENV_START, _ENV_END = 8, 9, 10, 11
_FIRST_FIELD = 48  # arg_start of proc_pid_stat(5), counted from 1

_kept: list[ctypes.Array[ctypes.c_char]] = []  # the kernel reads it for as long as we live


def replace_command_and_environment(command: str, environment: dict[str, str]) -> None:
    """Show other words and variables in /proc/self; what stood there is wiped first.

    For a process that was never executed: its area is still that of the program it was forked
    from. Without CAP_SYS_RESOURCE the area stays where it is, and what does not fit is cut.

    Raises:
        OSError: /proc/self/stat cannot be read.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    first = _FIRST_FIELD - 3  # the field after the name is the third
    arg_start, arg_end, env_start, env_end = map(int, fields[first : first + 4])
    words = command.encode() + b"\0"
    variables = b"".join(f"{name}={value}\0".encode() for name, value in environment.items())
    _overwrite(arg_start, arg_end, words)
    _overwrite(env_start, env_end, variables)
    _move(words, variables)


def _overwrite(start: int, end: int, text: bytes) -> None:
    ctypes.memset(start, 0, end - start)
    kept = text[: max(end - start - 1, 0)]
    ctypes.memmove(start, kept, len(kept))


def _move(words: bytes, variables: bytes) -> None:
    """Point the kernel at memory that holds both whole; nothing where it lets us not."""
    area = ctypes.create_string_buffer(words + variables)
    begin = ctypes.addressof(area)
    middle, end = begin + len(words), begin + len(words + variables)
    _kept.append(area)
    # Each start before its end, since below the stack it is lower than the old end.
    for what, where in (
        (_ARG_START, begin),
        (_ARG_END, middle),
        (_ENV_START, middle),
        (_ENV_END, end),
    ):
        if libc.prctl(_PR_SET_MM, what, where, 0, 0):
            return
