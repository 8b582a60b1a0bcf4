"""Compiles filters of system calls by libseccomp, through its Python module; seccomp(2)."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machinectl_py.kernel.seccomp import Action, Rule

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
# Where socket is a call of its own and nothing else makes sockets.
_WITHOUT_SOCKETCALL = (
    *("X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "RISCV64"),
    *("MIPS64", "MIPS64N32", "MIPSEL64", "MIPSEL64N32"),
)
_OPTIMIZE_BINARY_TREE = 2
_INT_MAX = (1 << 31) - 1
_SYNC_OF_A_FILE = ("fdatasync", "fsync", "sync_file_range", "sync_file_range2", "syncfs")


def compile_rules(
    default: Action, rules: tuple[Rule, ...], architectures: tuple[str, ...] | None = None
) -> bytes:
    """Compile rules for system calls.

    A name that libseccomp or an architecture does not know is passed over: the call is then
    answered as any that no rule is about.

    Args:
        default: what becomes of calls that no rule is about.
        rules: for the others.
        architectures: libseccomp's names without SCMP_ARCH_, beside the native one; calls of
            others kill who makes them. None: all that this kernel takes, and others pass.

    Returns:
        An array of `struct sock_filter`.

    Raises:
        OSError, RuntimeError: libseccomp refused; which, depends on its Python module.
        UnsupportedError: its Python module is not installed.
    """
    seccomp = _pyseccomp()
    made = seccomp.SyscallFilter(_action(seccomp, default))
    if architectures is None:
        _pass_other_architectures(seccomp, made)
        others = _architectures(seccomp)[1:]
    else:
        known = (getattr(seccomp.Arch, name, None) for name in architectures)
        others = [other for other in known if other is not None]
    for architecture in others:
        if not made.exist_arch(architecture):
            made.add_arch(architecture)
    if hasattr(seccomp.Attr, "CTL_OPTIMIZE"):  # libseccomp 2.5
        made.set_attr(seccomp.Attr.CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
    for rule in rules:
        if rule.action == default:  # libseccomp refuses such a rule
            continue
        conditions = [
            seccomp.Arg(c.argument, getattr(seccomp, c.operator), c.value, c.masked)
            for c in rule.conditions
        ]
        for name in rule.calls:
            if _is_known(seccomp, name):
                made.add_rule(_action(seccomp, rule.action), name, *conditions)
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

    def add_rules(made: Any) -> bool:
        return _add_exactly(
            made,
            seccomp.ERRNO(errno.EAFNOSUPPORT),
            "socket",
            seccomp.Arg(0, seccomp.EQ, AF_NETLINK),
            seccomp.Arg(2, seccomp.EQ, NETLINK_AUDIT),
        )

    return _compile_each(seccomp, _architectures(seccomp), add_rules)


def compile_families(families: tuple[int, ...], *, deny: bool) -> bytes:
    """Compile a filter of the address families of socket(2): others get EAFNOSUPPORT.

    Not for architectures that have socketcall(2), whose arguments cannot be seen.

    Args:
        families: numbers of address families.
        deny: whether they are those refused, else the only ones allowed.

    Returns:
        An array of `struct sock_filter`; empty where no architecture can be filtered.

    Raises:
        OSError, RuntimeError: libseccomp refused; which, depends on its Python module.
        UnsupportedError: its Python module is not installed.
    """
    seccomp = _pyseccomp()
    wanted = sorted(families)
    conditions: list[tuple[Any, ...]] = [()]  # an empty list of allowed ones: no socket at all
    if deny:
        conditions = [(seccomp.Arg(0, seccomp.EQ, family),) for family in wanted]
    elif wanted:
        between = [number for number in range(wanted[0], wanted[-1]) if number not in families]
        conditions = [
            (seccomp.Arg(0, seccomp.LT, wanted[0]),),
            (seccomp.Arg(0, seccomp.GT, wanted[-1]),),
            *((seccomp.Arg(0, seccomp.EQ, number),) for number in between),
        ]
    refuse = seccomp.ERRNO(errno.EAFNOSUPPORT)

    def add_rules(made: Any) -> bool:
        return all(_add_exactly(made, refuse, "socket", *arguments) for arguments in conditions)

    seen = {_number(seccomp, name) for name in _WITHOUT_SOCKETCALL if hasattr(seccomp.Arch, name)}
    native, *others = _architectures(seccomp)
    can = [native] if seccomp.system_arch() in seen else []
    can += [other for other in others if int(other) & 0xFFFFFFFF in seen]
    return _compile_each(seccomp, can, add_rules)


def compile_sync_suppressor(calls: tuple[str, ...]) -> bytes:
    """Compile a filter by which calls that write to the disk at once succeed without effect.

    A negative descriptor is left to the kernel, which refuses it. Files cannot be opened with
    O_SYNC or O_DSYNC (EINVAL), nor by openat2(2), whose flags cannot be seen (ENOSYS).

    Args:
        calls: fsync(2) and its like.

    Raises:
        OSError, RuntimeError: libseccomp refused; which, depends on its Python module.
        UnsupportedError: its Python module is not installed.
    """
    seccomp = _pyseccomp()

    def add_rules(made: Any) -> bool:
        added = False
        for name in calls:
            descriptor = (seccomp.Arg(0, seccomp.LE, _INT_MAX),) if name in _SYNC_OF_A_FILE else ()
            added |= _add_exactly(made, seccomp.ERRNO(0), name, *descriptor)
        for flag in sorted({os.O_SYNC, os.O_DSYNC}):
            for name, argument in (("open", 1), ("openat", 2)):
                has_flag = seccomp.Arg(argument, seccomp.MASKED_EQ, flag, flag)
                added |= _add_exactly(made, seccomp.ERRNO(errno.EINVAL), name, has_flag)
        return _add_exactly(made, seccomp.ERRNO(errno.ENOSYS), "openat2") or added

    return _compile_each(seccomp, _architectures(seccomp), add_rules)


def _pyseccomp() -> Any:
    from machinectl_py.thirdparty import need

    return need("pyseccomp")


def _action(seccomp: Any, action: Action) -> Any:
    value = getattr(seccomp, action.kind)
    return value(action.number) if action.kind in ("ERRNO", "TRACE") else value


def _is_known(seccomp: Any, name: str) -> bool:
    return bool(seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1)  # __NR_SCMP_ERROR


def _number(seccomp: Any, architecture: str) -> int:
    return int(getattr(seccomp.Arch, architecture)) & 0xFFFFFFFF


def _architectures(seccomp: Any) -> list[Any]:
    """Return the native architecture, then those that its kernel takes beside."""
    native = seccomp.system_arch()
    for name, others in _SECONDARY.items():
        if _number(seccomp, name) == native:
            return [seccomp.Arch.NATIVE, *(getattr(seccomp.Arch, other) for other in others)]
    return [seccomp.Arch.NATIVE]


def _pass_other_architectures(seccomp: Any, made: Any) -> None:
    """Let a call of an architecture not in the filter pass, rather than kill, as systemd does."""
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.ALLOW)


def _add_exactly(made: Any, action: Any, name: str, *conditions: Any) -> bool:
    """Add a rule if the filter's architecture has it in just this form; say so."""
    if not _is_known(_pyseccomp(), name):
        return False
    try:
        made.add_rule_exactly(action, name, *conditions)
    except (OSError, RuntimeError):  # of pyseccomp, of libseccomp's own module
        return False
    return True


def _compile_each(
    seccomp: Any, architectures: list[Any], add_rules: Callable[[Any], bool]
) -> bytes:
    """Compile a filter that passes what no rule is about, the rules made for each architecture.

    Args:
        seccomp: the module.
        architectures: those to be filtered.
        add_rules: adds them to a filter of one architecture; says whether it could.
    """
    filters = []
    for architecture in architectures:
        made = seccomp.SyscallFilter(seccomp.ALLOW)
        _pass_other_architectures(seccomp, made)
        if architecture != seccomp.Arch.NATIVE:
            made.add_arch(architecture)
            made.remove_arch(seccomp.Arch.NATIVE)
        if add_rules(made):
            filters.append(made)
    for other in filters[1:]:
        filters[0].merge(other)
    return _export(filters[0]) if filters else b""


def _export(made: Any) -> bytes:
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "r+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
