"""Compiled seccomp programs, kept by what went into them.

To compile takes libseccomp tens of milliseconds, at every start in systemd-nspawn; to find the
result of the last time takes a fraction of one. So nothing heavy is imported but to compile.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from machinectl_py import __version__
from machinectl_py.codec import encode
from machinectl_py.errors import DeniedError, PymachineError
from machinectl_py.kernel import seccomp as kernel
from machinectl_py.kernel.libc import MACHINE
from machinectl_py.kernel.seccomp import Action, Rule
from machinectl_py.layout import RUN_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import SeccompSpec

CACHE_DIR = "/var/cache/pymachine/seccomp"
# Where /var is read-only or full.
FALLBACK_DIR = f"{RUN_DIR}/seccomp"


def program_path(capabilities: int, seccomp: SeccompSpec) -> str:
    """Return the path of a file with the compiled programs; `read_programs` reads it.

    Args:
        capabilities: the machine's bounding set, bit per capability.
        seccomp: what is allowed and denied beside the default.

    Raises:
        ConfigError: there is no call or group of a name in `seccomp`.
        DeniedError: others than root may write to the cache.
        UnsupportedError: Python's module of libseccomp is not installed.
        PymachineError: the programs could not be compiled or stored.
    """
    name = _key(capabilities, seccomp)
    for directory in (CACHE_DIR, FALLBACK_DIR):
        if _holds(directory, name):
            return f"{directory}/{name}"
    programs = compile_programs(capabilities, seccomp)
    try:
        return _store(CACHE_DIR, name, programs)
    except OSError:
        pass
    try:
        return _store(FALLBACK_DIR, name, programs)
    except OSError as error:
        raise PymachineError(f"Failed to store the seccomp programs: {error}") from error


def compile_programs(capabilities: int, seccomp: SeccompSpec) -> tuple[bytes, ...]:
    """Compile all filters, in the order to be loaded.

    Of filters that refuse a call with different errnos the kernel takes that loaded last. So the
    allow-list comes first, as systemd-nspawn has it; but last if it denies prctl(2), which loads.

    Raises:
        ConfigError: there is no call, group or family of a name in `seccomp`.
        UnsupportedError: Python's module of libseccomp is not installed.
        PymachineError: libseccomp refused.
    """
    compile_main = _compile_profile if seccomp.profile else _compile_lists
    try:
        calls, loads = compile_main(capabilities, seccomp)
        others = _compile_wishes(seccomp)
    except (OSError, RuntimeError) as error:  # of pyseccomp, of libseccomp's own module
        raise PymachineError(f"Failed to compile the seccomp programs: {error}") from error
    programs = (calls, *others) if loads else (*others, calls)
    return tuple(program for program in programs if program)


def _compile_profile(capabilities: int, seccomp: SeccompSpec) -> tuple[bytes, bool]:
    """Compile a profile; say whether it allows prctl(2)."""
    from machinectl_py.kernel import seccomp_compile
    from machinectl_py.plan.oci_seccomp import ProfileHost, parse_profile

    host = ProfileHost(machine=MACHINE, release=os.uname().release, capabilities=capabilities)
    profile = parse_profile(seccomp.profile, host)
    rules, architectures = profile.rules, profile.architectures
    program = seccomp_compile.compile_rules(profile.default, rules, architectures)
    return program, profile.allows("prctl")


def _compile_lists(capabilities: int, seccomp: SeccompSpec) -> tuple[bytes, bool]:
    """Compile the default with the lists; say whether they allow prctl(2)."""
    from machinectl_py.kernel import seccomp_compile
    from machinectl_py.plan.syscalls import allowed_calls, answers, known_calls

    allowed = allowed_calls(capabilities, seccomp.allow, seccomp.deny)
    answered = answers(seccomp.deny)
    refused = sorted(known_calls().difference(allowed, answered))
    special = tuple(Rule(action=action, calls=(call,)) for call, action in answered.items())
    rules = (Rule(action=_ALLOW, calls=allowed), Rule(action=_REFUSE, calls=tuple(refused)))
    program = seccomp_compile.compile_rules(_UNKNOWN, (*rules, *special))
    return program, "prctl" in allowed


_ALLOW, _REFUSE = Action(kind="ALLOW"), Action(kind="ERRNO", number=errno.EPERM)
_UNKNOWN = Action(kind="ERRNO", number=errno.ENOSYS)


def _compile_wishes(seccomp: SeccompSpec) -> tuple[bytes, ...]:
    """Compile what stands beside the list of calls; a profile says itself what of audit it has."""
    from machinectl_py.kernel import seccomp_compile
    from machinectl_py.plan.families import family_numbers
    from machinectl_py.plan.syscalls import GROUPS

    programs = [] if seccomp.profile else [seccomp_compile.compile_audit_mask()]
    if seccomp.families:
        numbers = family_numbers(seccomp.families)
        programs.append(seccomp_compile.compile_families(numbers, deny=seccomp.families_deny))
    if seccomp.suppress_sync:
        programs.append(seccomp_compile.compile_sync_suppressor(tuple(GROUPS["@sync"].split())))
    return tuple(programs)


# Ours that make the programs.
_SOURCES = ("seccomp_cache", "syscalls", "families", "oci_seccomp")


def _key(capabilities: int, seccomp: SeccompSpec) -> str:
    """Return a name for all that the programs depend on, without expanding a list.

    That is what was asked, our tables, our compiler, libseccomp, and the architecture.
    """
    from _blake2 import blake2b  # hashlib costs 2 ms to import

    inputs = (
        __version__,
        *(_identity(f"{os.path.dirname(__file__)}/{name}.py") for name in _SOURCES),
        _identity(f"{os.path.dirname(kernel.__file__)}/seccomp_compile.py"),
        _identity(_libseccomp()),
        MACHINE,
        capabilities,
        seccomp.to_data(),
        os.uname().release if seccomp.profile else "",
    )
    return blake2b(encode(inputs).encode(), digest_size=16).hexdigest()


def _identity(path: str) -> tuple[str | int, ...]:
    """Return what tells a file from its next version; an upgrade brings a new inode."""
    try:
        found = os.stat(path)
    except OSError:
        return (path,)
    return (path, found.st_ino, found.st_size, found.st_mtime_ns)


def _libseccomp() -> str:
    """Return the path of the library, where distributions have it."""
    triplet = getattr(sys.implementation, "_multiarch", "")
    paths = [f"{place}/libseccomp.so.2" for place in (f"/usr/lib/{triplet}", "/usr/lib64")]
    return next((path for path in paths if os.access(path, os.F_OK)), "/usr/lib/libseccomp.so.2")


def _holds(directory: str, name: str) -> bool:
    """Tell whether the cache has these programs, whole and written by root alone.

    Raises:
        DeniedError: others may write to the directory, so that nothing in it can be trusted.
    """
    try:
        private = _is_private(os.stat(directory))
    except OSError:
        return False
    if not private:
        raise DeniedError(f"'{directory}' can be written by others", f"rm -r {directory}")
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _is_private(os.fstat(fd)) and bool(kernel.read_programs(fd))
    except OSError:
        return False
    finally:
        os.close(fd)


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _store(directory: str, name: str, programs: tuple[bytes, ...]) -> str:
    """Write aside, then rename: a reader, or another start at the same time, sees a whole file.

    Raises:
        OSError: with errno.
    """
    mask = os.umask(0o022)
    try:
        os.makedirs(directory, exist_ok=True)
        path = f"{directory}/{name}"
        aside = f"{path}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(aside, flags, 0o644)
    finally:
        os.umask(mask)
    try:
        kernel.write_programs(fd, programs)
        os.rename(aside, path)
    except OSError:
        os.unlink(aside)
        raise
    finally:
        os.close(fd)
    return path
