"""Processes: pidfds, prctl(2), descriptors, sessions."""

from __future__ import annotations

import errno
import os

from machinectl_py.kernel import const
from machinectl_py.kernel.libc import MACHINE, check, libc


def pidfd_open(pid: int) -> int:
    """Return a pidfd of the process, close-on-exec; see pidfd_open(2).

    Raises:
        ProcessLookupError: there is no such process.
    """
    return check(libc.syscall(const.NR_pidfd_open, pid, 0), "pidfd_open", str(pid))


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal to the very process of the pidfd; see pidfd_send_signal(2).

    Raises:
        ProcessLookupError: it has ended.
    """
    check(libc.syscall(const.NR_pidfd_send_signal, pidfd, signal, None, 0), "pidfd_send_signal")


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send `signal` to this process when its parent dies; PR_SET_PDEATHSIG."""
    check(libc.prctl(const.PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG")


def set_no_new_privileges() -> None:
    """Let no execve(2) gain privileges from now on; PR_SET_NO_NEW_PRIVS."""
    check(libc.prctl(const.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS")


def set_dumpable(*, on: bool) -> None:
    """Say whether others may look into this process, /proc/PID/exe and fd too; PR_SET_DUMPABLE.

    Inherited by children, until an execve(2). While off, only CAP_SYS_PTRACE in the user
    namespace that the process was executed in opens it; see PTRACE_MODE in ptrace(2).
    """
    check(libc.prctl(_PR_SET_DUMPABLE, int(on), 0, 0, 0), "prctl", "PR_SET_DUMPABLE")


_PR_SET_DUMPABLE = 4


def set_name(name: str) -> None:
    """Set the process's name, as in /proc/PID/comm, at most 15 bytes; PR_SET_NAME."""
    buffer = os.fsencode(name)[:15]
    import ctypes

    address = ctypes.cast(ctypes.create_string_buffer(buffer), ctypes.c_void_p).value or 0
    check(libc.prctl(const.PR_SET_NAME, address, 0, 0, 0), "prctl", "PR_SET_NAME")


def set_keep_capabilities() -> None:
    """Keep the permitted capabilities over a change of the user, until execve; PR_SET_KEEPCAPS."""
    check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl", "PR_SET_KEEPCAPS")


_PR_SET_KEEPCAPS = 8


def restart() -> None:
    """As PID 1, end the PID namespace as a reboot: the parent sees SIGHUP; reboot(2).

    Raises:
        OSError: EPERM without CAP_SYS_BOOT.
    """
    check(libc.reboot(_RB_AUTOBOOT), "reboot", "RB_AUTOBOOT")


def power_off() -> None:
    """As PID 1, end the PID namespace as a power-off: the parent sees SIGINT; reboot(2).

    Raises:
        OSError: EPERM without CAP_SYS_BOOT.
    """
    check(libc.reboot(_RB_POWER_OFF), "reboot", "RB_POWER_OFF")


_RB_AUTOBOOT, _RB_POWER_OFF = 0x01234567, 0x4321FEDC  # <sys/reboot.h>


def set_personality(persona: int) -> None:
    """Set the execution domain of this process and its children, and all its flags; personality(2).

    Raises:
        OSError: EINVAL if the kernel has no such domain.
    """
    check(libc.personality(persona), "personality", f"{persona:#x}")


PER_LINUX, PER_LINUX32 = 0, 8  # <linux/personality.h>


def adjust_oom_score(pid: int, value: int) -> None:
    """Make a process likelier (to 1000) or less likely (to -1000) to be killed for its memory.

    See /proc/PID/oom_score_adj in proc(5).

    Raises:
        PermissionError: to lower it below what it was wants CAP_SYS_RESOURCE.
        OSError: with errno and the path.
    """
    path = f"/proc/{pid}/oom_score_adj"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def join_new_keyring() -> None:
    """Join a new, anonymous session keyring, if the kernel has any; keyctl(2)."""
    number = _NR_KEYCTL.get(MACHINE, _NR_KEYCTL_GENERIC)
    libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


_NR_KEYCTL = {"x86_64": 250, "s390x": 280, "ppc64le": 271}
_NR_KEYCTL_GENERIC = 219  # <asm-generic/unistd.h>
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CLOSE_RANGE_CLOEXEC = 4


def reset_signals() -> None:
    """Set each signal to its default and block none, as for a program started afresh.

    Also the two below SIGRTMIN that libc keeps for itself and signal(2) refuses: glibc's
    posix_spawn(3), by which some callers start us, leaves them ignored.
    """
    import _signal
    import ctypes

    for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)
    default = ctypes.create_string_buffer(32)  # `struct sigaction` of the kernel, SIG_DFL being 0
    call = _NR_RT_SIGACTION.get(MACHINE, _NR_RT_SIGACTION_GENERIC)
    for number in range(32, _signal.SIGRTMIN):
        check(libc.syscall(call, number, default, None, ctypes.c_size_t(8)), "rt_sigaction")
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


_NR_RT_SIGACTION = {"x86_64": 13, "s390x": 174, "ppc64le": 173}
_NR_RT_SIGACTION_GENERIC = 134  # <asm-generic/unistd.h>


def close_range(first: int, last: int = 0xFFFFFFFF, *, on_exec: bool = False) -> None:
    """Close the descriptors from `first` to `last`, at once or on execve; close_range(2).

    Raises:
        OSError: with errno and "close_range".
    """
    import ctypes

    check(
        libc.syscall(
            const.NR_close_range,
            ctypes.c_uint(first),
            ctypes.c_uint(last),
            _CLOSE_RANGE_CLOEXEC if on_exec else 0,
        ),
        "close_range",
    )


def fork_orphan() -> int:
    """Fork a child of PID 1, or of the nearest subreaper, by a process between; fork(2).

    Returns:
        The child's PID; 0 in the child.

    Raises:
        OSError: one of the two cannot be forked.
    """
    out, into = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid == 0:
            os.close(out)
            os.close(into)
            return 0
        os.write(into, f"{pid}".encode())
        os._exit(0)
    os.close(into)
    os.waitpid(between, 0)  # from here on the child is another's
    told = os.read(out, 16)
    os.close(out)
    if not told:
        raise BlockingIOError(errno.EAGAIN, "fork")
    return int(told)
