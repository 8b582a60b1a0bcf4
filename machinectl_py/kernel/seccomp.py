"""Programs that filter system calls: compiled by libseccomp, kept as bytes, loaded; seccomp(2).

A filter is compiled through the pyseccomp module, outside the machine; it is loaded inside by one
prctl(2), without any library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from machinectl_py.kernel.libc import check, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# <linux/prctl.h>, <linux/seccomp.h>
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2

# <linux/bpf_common.h>, <linux/filter.h>
BPF_MAXINSNS = 4096
SIZEOF_SOCK_FILTER = 8

# <linux/socket.h>, <linux/netlink.h>
AF_NETLINK = 16
NETLINK_AUDIT = 9

# The other architectures whose calls a kernel of the first one takes.
_SECONDARY = {
    "X86_64": ("X86", "X32"),
    "AARCH64": ("ARM",),
    "PPC64": ("PPC",),
    "S390X": ("S390",),
    "MIPS64": ("MIPS", "MIPS64N32"),
    "MIPSEL64": ("MIPSEL", "MIPSEL64N32"),
}
_OPTIMIZE_BINARY_TREE = 2

_MAGIC = b"PYMBPF1\n"
_DIGEST_SIZE = 16
_LENGTH = struct.Struct("=H")  # of a program in instructions


class _SockFprog(ctypes.Structure):
    """`struct sock_fprog` of <linux/filter.h>."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def compile_filter(allowed: tuple[str, ...], refused: tuple[str, ...]) -> bytes:
    """Compile an allow-list of system calls for all architectures of this machine.

    What is in neither list fails with ENOSYS, as if the kernel had no such call. A name that
    libseccomp or an architecture does not know is passed over: the call then fails so too.

    Args:
        allowed: names of calls that pass.
        refused: names of calls that fail with EPERM.

    Returns:
        An array of `struct sock_filter`.

    Raises:
        OSError, RuntimeError: libseccomp refused; which, depends on its Python module.
        UnsupportedError: its Python module is not installed.
    """
    seccomp = _pyseccomp()
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    _pass_other_architectures(seccomp, made)
    for architecture in _architectures(seccomp)[1:]:
        made.add_arch(architecture)
    if hasattr(seccomp.Attr, "CTL_OPTIMIZE"):  # libseccomp 2.5
        made.set_attr(seccomp.Attr.CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
    for action, names in ((seccomp.ALLOW, allowed), (seccomp.ERRNO(errno.EPERM), refused)):
        for name in names:
            if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1:  # __NR_SCMP_ERROR
                made.add_rule(action, name)
    return _export(made)


def compile_audit_mask() -> bytes:
    """Compile a filter by which the kernel seems to have no audit: socket(2) EAFNOSUPPORT.

    The audit subsystem knows no namespaces, and programs that could not reach it would fail.
    Only where socket is a call of its own: behind socketcall(2) its arguments cannot be seen.

    Raises:
        OSError, RuntimeError: libseccomp refused; which, depends on its Python module.
        UnsupportedError: its Python module is not installed.
    """
    seccomp = _pyseccomp()
    filters = []
    for architecture in _architectures(seccomp):
        made = seccomp.SyscallFilter(seccomp.ALLOW)
        _pass_other_architectures(seccomp, made)
        if architecture != seccomp.Arch.NATIVE:
            made.add_arch(architecture)
            made.remove_arch(seccomp.Arch.NATIVE)
        try:
            made.add_rule_exactly(
                seccomp.ERRNO(errno.EAFNOSUPPORT),
                "socket",
                seccomp.Arg(0, seccomp.EQ, AF_NETLINK),
                seccomp.Arg(2, seccomp.EQ, NETLINK_AUDIT),
            )
        except (OSError, RuntimeError):  # of pyseccomp, of libseccomp's own module
            continue
        filters.append(made)
    for other in filters[1:]:
        filters[0].merge(other)
    return _export(filters[0]) if filters else b""


def _pyseccomp() -> Any:
    from machinectl_py.thirdparty import need

    return need("pyseccomp")


def _architectures(seccomp: Any) -> list[Any]:
    """Return the native architecture, then those that its kernel takes beside."""
    native = seccomp.system_arch()
    for name, others in _SECONDARY.items():
        if getattr(seccomp.Arch, name) & 0xFFFFFFFF == native:
            return [seccomp.Arch.NATIVE, *(getattr(seccomp.Arch, other) for other in others)]
    return [seccomp.Arch.NATIVE]


def _pass_other_architectures(seccomp: Any, made: Any) -> None:
    """Let a call of an architecture not in the filter pass, rather than kill, as systemd does."""
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.ALLOW)


def _export(made: Any) -> bytes:
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "r+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


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
