"""Programs that filter system calls: kept as bytes, loaded by prctl(2) alone; seccomp(2).

`seccomp_compile` makes them, outside the machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from machinectl_py.kernel.libc import check, libc
from machinectl_py.record import Record

# <linux/prctl.h>, <linux/seccomp.h>
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2

# <linux/bpf_common.h>, <linux/filter.h>
BPF_MAXINSNS = 4096
SIZEOF_SOCK_FILTER = 8

_MAGIC = b"PYMBPF1\n"
_DIGEST_SIZE = 16
_LENGTH = struct.Struct("=H")  # of a program in instructions


class Action(Record):
    """What becomes of a call, by libseccomp's name without SCMP_ACT_."""

    kind: str  # "ALLOW", "ERRNO", "KILL_PROCESS", "KILL", "TRAP", "TRACE", "LOG"
    number: int = 0  # the errno, or what the tracer is told


class Condition(Record):
    """What an argument of a call must be, for a rule to hold."""

    argument: int  # from 0
    operator: str  # "EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"
    value: int  # with "MASKED_EQ" the mask
    masked: int = 0  # with "MASKED_EQ" what the argument under the mask is


class Rule(Record):
    """Calls that are answered so, if all the conditions hold."""

    action: Action
    calls: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()


class _SockFprog(ctypes.Structure):
    """`struct sock_fprog` of <linux/filter.h>."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load_filters(programs: tuple[bytes, ...]) -> None:
    """Lay these filters upon this thread and what it will start, for good.

    The caller has CAP_SYS_ADMIN in its user namespace, or PR_SET_NO_NEW_PRIVS is set. The first
    program must let prctl(2) pass if others follow. See seccomp(2).

    Raises:
        OSError: with errno and "prctl".
    """
    for program in programs:
        count = len(program) // SIZEOF_SOCK_FILTER
        if not 0 < count <= BPF_MAXINSNS or len(program) % SIZEOF_SOCK_FILTER:
            raise OSError(errno.EINVAL, f"prctl: no BPF program ({len(program)} bytes)")
        fprog = _SockFprog(len=count, filter=program)
        check(
            libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0),
            "prctl",
            "PR_SET_SECCOMP",
        )


def write_programs(fd: int, programs: tuple[bytes, ...]) -> None:
    """Write compiled programs to a new file, so that `read_programs` can tell they are whole.

    Raises:
        OSError: with errno.
    """
    body = b"".join(
        _LENGTH.pack(len(program) // SIZEOF_SOCK_FILTER) + program for program in programs
    )
    data = _MAGIC + _digest(body) + body
    while data:
        data = data[os.write(fd, data) :]


def read_programs(fd: int) -> tuple[bytes, ...]:
    """Return the programs of a file that `write_programs` made, from its beginning.

    Raises:
        OSError: with errno; EBADMSG if the file is not whole, or not of this form.
    """
    data = b""
    while chunk := os.pread(fd, 1 << 18, len(data)):
        data += chunk
    start = len(_MAGIC) + _DIGEST_SIZE
    magic, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) : start], data[start:]
    if magic != _MAGIC or digest != _digest(body):
        raise OSError(errno.EBADMSG, "not a file of seccomp programs, or damaged")
    programs = []
    while body:
        end = _LENGTH.size + _LENGTH.unpack_from(body)[0] * SIZEOF_SOCK_FILTER
        programs.append(body[_LENGTH.size : end])
        body = body[end:]
    return tuple(programs)


def _digest(body: bytes) -> bytes:
    """Return a digest by the C module behind hashlib, which itself costs 2 ms to import."""
    from _blake2 import blake2b

    return blake2b(body, digest_size=_DIGEST_SIZE).digest()
