"""The answer to every system call is the one that systemd-nspawn's filters give.

The kernel hands out the programs that a process runs under (ptrace(2),
PTRACE_SECCOMP_GET_FILTER); they and ours are run by an interpreter of BPF on every call number.
Needs root and systemd-nspawn.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.config.spec import SeccompSpec
from machinectl_py.kernel.capabilities import mask_names, parse_names
from machinectl_py.kernel.libc import check, libc
from machinectl_py.plan.seccomp_cache import compile_programs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
PTRACE_SECCOMP_GET_FILTER = 0x420C

AUDIT_ARCH_X86_64, AUDIT_ARCH_I386 = 0xC000003E, 0x40000003
X32 = 0x40000000
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

# systemd-nspawn(1), --capability=
NSPAWN_DEFAULT_NAMES = (
    "AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_OWNER KILL "
    "LEASE LINUX_IMMUTABLE MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP "
    "SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG"
)
NSPAWN_DEFAULT = parse_names(tuple(NSPAWN_DEFAULT_NAMES.split()))
# What older versions of systemd answer otherwise than our tables, which are those of 257: to
# them cachestat is unknown (ENOSYS), and landlock_* refused (EPERM).
LATER = {444: ALLOW, 445: ALLOW, 446: ALLOW, 451: ERRNO | errno.EPERM}


class Program:
    """A classic BPF program, as far as seccomp(2) allows and libseccomp writes it."""

    def __init__(self, code: bytes) -> None:
        self.code = list(struct.iter_unpack("=HBBI", code))

    def run(self, data: bytes) -> int:
        """Return the action for a `struct seccomp_data`."""
        at = accumulator = 0
        while True:
            code, true, false, k = self.code[at]
            at += 1
            match code:
                case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                    accumulator = struct.unpack_from("=I", data, k)[0]
                case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                    accumulator &= k
                case 0x05:  # BPF_JMP | BPF_JA
                    at += k
                case 0x15:  # BPF_JEQ
                    at += true if accumulator == k else false
                case 0x25:  # BPF_JGT
                    at += true if accumulator > k else false
                case 0x35:  # BPF_JGE
                    at += true if accumulator >= k else false
                case 0x06:  # BPF_RET | BPF_K
                    return k
                case _:
                    raise AssertionError(f"BPF code {code:#x}")


def answer(programs: list[Program], arch: int, number: int, *arguments: int) -> int:
    """Return what the kernel would do: the strictest action, of equal ones the newest."""
    data = struct.pack("=iIQ6Q", _signed(number), arch, 0, *(*arguments, *[0] * 6)[:6])
    results = [program.run(data) for program in reversed(programs)]
    return min(results, key=lambda result: result & 0x7FFF0000)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def filters_of(pid: int) -> list[Program]:
    """Return the filters of a process, oldest first."""
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    check(libc.ptrace(PTRACE_SEIZE, pid, None, None), "ptrace")
    check(libc.ptrace(PTRACE_INTERRUPT, pid, None, None), "ptrace")
    os.waitpid(pid, 0x40000000)  # __WALL
    found = []
    try:
        while True:
            length = libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, len(found), None)
            if length < 0:
                assert ctypes.get_errno() == errno.ENOENT
                return found
            buffer = ctypes.create_string_buffer(length * 8)
            check(libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, len(found), buffer), "ptrace")
            found.append(Program(buffer.raw))
    finally:
        libc.ptrace(PTRACE_DETACH, pid, None, None)


@pytest.fixture
def nspawn(pristine_tree):
    """Return a function that starts systemd-nspawn and gives the PID of its payload."""
    running = []

    def start(*options: str) -> int:
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--read-only"]
        command += [*options, f"--machine=seccomp{os.getpid()}", "-D", str(pristine_tree)]
        process = subprocess.Popen(
            [*command, "/bin/sleep", "60"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return payload_of(process)

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def payload_of(process: subprocess.Popen[str]) -> int:
    """Wait until the payload is executed, and return its PID."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text() == "sleep\n":
                return int(child)
        time.sleep(0.02)
    raise AssertionError("no payload")


def every_call():
    """Yield architecture, number and arguments of all calls, and of what is beyond them."""
    for number in range(1200):
        yield AUDIT_ARCH_X86_64, number
        yield AUDIT_ARCH_X86_64, X32 | number
        yield AUDIT_ARCH_I386, number
    for number in (0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFD8D3):
        yield AUDIT_ARCH_X86_64, number
        yield AUDIT_ARCH_I386, number
    for family in (1, 2, 16):
        for protocol in (0, 9, 15, 9 << 32):
            yield AUDIT_ARCH_X86_64, 41, family, 3, protocol
            yield AUDIT_ARCH_X86_64, X32 | 41, family, 3, protocol
            yield AUDIT_ARCH_I386, 359, family, 3, protocol
    for call in range(24):
        yield AUDIT_ARCH_I386, 102, call  # socketcall
        yield AUDIT_ARCH_I386, 117, call  # ipc


CASES = {
    "default": ((), (), ()),
    "few capabilities": (("-all", "CAP_CHOWN"), (), ()),
    "more capabilities": (
        (
            "CAP_SYS_TIME",
            "CAP_SYS_MODULE",
            "CAP_SYS_RAWIO",
            "CAP_IPC_LOCK",
            "CAP_SYSLOG",
            "CAP_SYS_PACCT",
        ),
        (),
        (),
    ),
    "groups allowed": ((), ("@keyring", "@pkey", "bpf", "perf_event_open"), ()),
    "calls denied": ((), (), ("ptrace", "@module", "sethostname", "@swap", "mincore")),
    "allowed and denied": ((), ("@keyring", "@swap"), ("keyctl", "connect", "shmget")),
    "socket denied": ((), (), ("socket",)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_call_is_answered_as_systemd_nspawn_does(nspawn, case):
    wanted, allow, deny = CASES[case]
    names = tuple(name for name in wanted if name != "-all")
    mask = parse_names(names) | (0 if "-all" in wanted else NSPAWN_DEFAULT)
    options = [f"--capability={','.join(names)}"] if names else []
    if "-all" in wanted:
        dropped = mask_names(NSPAWN_DEFAULT & ~mask)
        options = [f"--drop-capability={','.join(dropped)}"]
    options += [f"--system-call-filter={name}" for name in allow]
    options += [f"--system-call-filter=~{name}" for name in deny]

    theirs = filters_of(nspawn(*options))
    ours = [
        Program(program) for program in compile_programs(mask, SeccompSpec(allow=allow, deny=deny))
    ]

    assert len(theirs) >= 2
    assert differences(ours, theirs, every_call()) == {}


def differences(ours: list[Program], theirs: list[Program], calls) -> dict:
    found = {}
    for arch, *call in calls:
        got, expected = answer(ours, arch, *call), answer(theirs, arch, *call)
        if got not in (expected, LATER.get(call[0] & ~X32)):
            found[hex(arch), *call] = (hex(got), hex(expected))
    return found


def every_sync():
    """Yield calls that write at once, with descriptors that can and that cannot be."""
    for arch, calls in (
        (AUDIT_ARCH_X86_64, (74, 75, 26, 162, 277, 306)),
        (AUDIT_ARCH_I386, (118, 148, 144, 36, 314, 344)),
    ):
        for number in calls:
            yield from ((arch, number, fd) for fd in (0, 7, 0x7FFFFFFF))
    for flags in (0, os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_CREAT, os.O_CREAT):
        yield AUDIT_ARCH_X86_64, 2, 0, flags
        yield AUDIT_ARCH_X86_64, 257, 0, 0, flags
        yield AUDIT_ARCH_X86_64, X32 | 257, 0, 0, flags
        yield AUDIT_ARCH_I386, 5, 0, flags
        yield AUDIT_ARCH_I386, 295, 0, 0, flags


@pytest.mark.parametrize("deny", [(), ("fsync",)], ids=["allowed", "denied"])
def test_sync_is_suppressed_as_systemd_nspawn_does(nspawn, deny):
    options = ["--suppress-sync=yes", *(f"--system-call-filter=~{name}" for name in deny)]
    theirs = filters_of(nspawn(*options))
    spec = SeccompSpec(suppress_sync=True, deny=deny)
    ours = [Program(program) for program in compile_programs(NSPAWN_DEFAULT, spec)]
    assert differences(ours, theirs, [*every_call(), *every_sync()]) == {}


def test_the_answers_are_allowed_refused_and_unknown():
    programs = [Program(program) for program in compile_programs(NSPAWN_DEFAULT, SeccompSpec())]
    assert answer(programs, AUDIT_ARCH_X86_64, 39) == ALLOW  # getpid
    assert answer(programs, AUDIT_ARCH_X86_64, 321) == ERRNO | errno.EPERM  # bpf
    assert answer(programs, AUDIT_ARCH_X86_64, 999) == ERRNO | errno.ENOSYS
    assert answer(programs, AUDIT_ARCH_X86_64, 41, 16, 3, 9) == ERRNO | errno.EAFNOSUPPORT
    assert answer(programs, AUDIT_ARCH_X86_64, 444) == ALLOW  # landlock_create_ruleset
