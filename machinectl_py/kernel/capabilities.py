"""Capabilities: names, masks, the bounding set, and the sets of this thread; capabilities(7)."""

from __future__ import annotations

import ctypes

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc

# <linux/capability.h>; the position is the number.
CAPABILITY_NAMES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
]

_VERSION_3 = 0x20080522
_BITS = 32


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def parse_names(names: tuple[str, ...]) -> int:
    """Return the mask of these capabilities, with or without "CAP_", in any case.

    Raises:
        ValueError: there is no capability of that name; its argument is the name.
    """
    mask = 0
    for name in names:
        full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
        if full not in CAPABILITY_NAMES:
            raise ValueError(name)
        mask |= 1 << CAPABILITY_NAMES.index(full)
    return mask


def mask_names(mask: int) -> tuple[str, ...]:
    """Return the names of the capabilities in a mask, by number."""
    return tuple(name for number, name in enumerate(CAPABILITY_NAMES) if mask >> number & 1)


def last_capability() -> int:
    """Return the highest capability that the kernel knows; /proc/sys/kernel/cap_last_cap."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def bounding_set(pid: int | str = "self") -> int:
    """Return the bounding set of a process as a mask; CapBnd of proc_pid_status(5)."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapBnd:"):
                return int(line.split()[1], 16)
    raise OSError(f"/proc/{pid}/status has no CapBnd")


def own_bounding_set() -> int:
    """Return this thread's bounding set as a mask, asking the kernel and no /proc: PR_CAPBSET_READ.

    Inside a machine /proc is the machine's, which may have mounted anything there.
    """
    mask = number = 0
    while (held := libc.prctl(const.PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        mask |= held << number
        number += 1
    return mask


def own_effective_set() -> int:
    """Return this thread's effective set as a mask; capget(2).

    Raises:
        OSError: with errno and "capget".
    """
    header = _Header(version=_VERSION_3, pid=0)
    data = (_Data * 2)()
    check(libc.capget(ctypes.byref(header), data), "capget")
    return int(data[0].effective | data[1].effective << _BITS)


def limit_capabilities(mask: int) -> None:
    """Bound this thread to the capabilities in `mask`, for good.

    The bounding set first, while CAP_SETPCAP is still held; then the permitted and effective
    sets. An execve(2) by root then gives the bounding set.

    Raises:
        OSError: with errno and "prctl" or "capset".
    """
    set_capabilities(limit_bounding_set(mask))


def limit_bounding_set(mask: int) -> int:
    """Drop what is not in `mask` from the bounding set; return what is left there.

    Raises:
        OSError: with errno and "prctl"; EPERM without CAP_SETPCAP.
    """
    bound = own_bounding_set()
    for number in range(bound.bit_length()):
        if bound >> number & 1 and not mask >> number & 1:
            check(
                libc.prctl(const.PR_CAPBSET_DROP, number, 0, 0, 0),
                "prctl",
                f"PR_CAPBSET_DROP {number}",
            )
    return mask & bound


def set_capabilities(mask: int) -> None:
    """Make `mask` the permitted and effective sets of this thread.

    Inheritable and ambient sets are emptied, so that a payload which changes its user keeps none.

    Raises:
        OSError: with errno and "capset"; EPERM if one is not permitted now.
    """
    libc.prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = _Header(version=_VERSION_3, pid=0)
    data = (_Data * 2)(
        _Data(effective=mask & 0xFFFFFFFF, permitted=mask & 0xFFFFFFFF, inheritable=0),
        _Data(effective=mask >> _BITS, permitted=mask >> _BITS, inheritable=0),
    )
    check(libc.capset(ctypes.byref(header), data), "capset")


def raise_ambient(mask: int) -> None:
    """Have this thread pass on these capabilities over execve(2) as any user; PR_CAP_AMBIENT_RAISE.

    They become inheritable too, as the kernel demands.

    Raises:
        OSError: EPERM if one is not permitted to this thread, or not in its bounding set.
    """
    header = _Header(version=_VERSION_3, pid=0)
    data = (_Data * 2)()
    check(libc.capget(ctypes.byref(header), data), "capget")
    data[0].inheritable |= mask & 0xFFFFFFFF
    data[1].inheritable |= mask >> _BITS
    check(libc.capset(ctypes.byref(header), data), "capset")
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            check(
                libc.prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_RAISE, number, 0, 0),
                "prctl",
                f"PR_CAP_AMBIENT_RAISE {number}",
            )


def restore_effective() -> None:
    """Make effective again all that this thread is permitted, as after a change of the user.

    Raises:
        OSError: with errno and "capget" or "capset".
    """
    header = _Header(version=_VERSION_3, pid=0)
    data = (_Data * 2)()
    check(libc.capget(ctypes.byref(header), data), "capget")
    for half in data:
        half.effective = half.permitted
    check(libc.capset(ctypes.byref(header), data), "capset")
