"""The kernel answers as the loaded programs say. Needs root: no_new_privs is not set."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import time

import pytest

from machinectl_py.codec import encode
from machinectl_py.config.spec import SeccompSpec
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.libc import libc
from machinectl_py.kernel.seccomp import load_filters, read_programs
from machinectl_py.plan import seccomp_cache

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SYS_ADMIN")
only_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="call numbers of x86-64")

KEYCTL, BPF, INIT_MODULE, NONE_SUCH = 250, 321, 175, 1000
FSYNC, OPENAT2 = 74, 437


def errno_of(number: int, *arguments: int) -> int:
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return ctypes.get_errno()


def under(programs: tuple[bytes, ...], probe) -> object:
    """Return what `probe()` gives in a child that has loaded these programs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            load_filters(programs)
            os.write(writer, repr(probe()).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writer, repr(str(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return eval(text)


def programs_for(capabilities: int = 0, **lists: object) -> tuple[bytes, ...]:
    return seccomp_cache.compile_programs(capabilities, SeccompSpec(**lists))


def status_line(field: str) -> str:
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{field}:"))


def test_filters_are_on_and_privileges_are_not_given_up():
    seen = under(programs_for(), lambda: [status_line("Seccomp"), status_line("NoNewPrivs")])
    assert seen == ["2", "0"]


@only_x86_64
def test_a_known_call_is_refused_and_an_unknown_one_is_none():
    numbers = (KEYCTL, BPF, NONE_SUCH)
    seen = under(programs_for(), lambda: [errno_of(number, 99) for number in numbers])
    assert seen == [errno.EPERM, errno.EPERM, errno.ENOSYS]


@only_x86_64
def test_a_capability_opens_its_calls():
    capable = programs_for(parse_names(("CAP_SYS_MODULE",)))
    assert under(programs_for(), lambda: errno_of(INIT_MODULE, 0, 0, 0)) == errno.EPERM
    assert under(capable, lambda: errno_of(INIT_MODULE, 0, 0, 0)) not in (0, errno.EPERM)


@only_x86_64
def test_allow_opens_a_call():
    opened = programs_for(allow=("keyctl",))
    assert under(opened, lambda: errno_of(KEYCTL, 99)) == errno.EOPNOTSUPP


def test_there_seems_to_be_no_audit_but_other_netlink():
    def families() -> list[int]:
        found = []
        for protocol in (9, 0):  # NETLINK_AUDIT, NETLINK_ROUTE
            try:
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
                found.append(0)
            except OSError as error:
                found.append(error.errno)
        return found

    assert under(programs_for(), families) == [errno.EAFNOSUPPORT, 0]


def test_what_loads_filters_may_itself_be_denied():
    denied = programs_for(deny=("prctl", "seccomp"))
    assert len(denied) == 2
    assert under(denied, lambda: libc.prctl(3, 0, 0, 0, 0)) == -1  # PR_GET_DUMPABLE


@only_x86_64
def test_a_denied_call_fails_as_its_entry_says():
    own = programs_for(deny=("keyctl:ENOTTY", "chmod:ENOSYS"))
    assert under(own, lambda: [errno_of(KEYCTL, 99), errno_of(90)]) == [errno.ENOTTY, errno.ENOSYS]


@only_x86_64
def test_a_denied_call_can_kill():
    child = os.fork()
    if child == 0:
        load_filters(programs_for(deny=("keyctl:kill",)))
        errno_of(KEYCTL, 99)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSYS


def errno_in(act, *arguments) -> int:
    try:
        act(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


@only_x86_64
def test_sync_is_suppressed_but_not_its_errors(tmp_path):
    def look() -> list[int]:
        path = str(tmp_path / "file")
        flags = os.O_WRONLY | os.O_CREAT
        return [
            errno_in(os.fsync, 999),  # would be EBADF
            errno_in(os.fdatasync, 999),
            errno_of(FSYNC, -1),
            errno_in(os.open, path, flags),
            errno_in(os.open, path, flags | os.O_SYNC),
            errno_in(os.open, path, flags | os.O_DSYNC),
            errno_of(OPENAT2, -100, 0, 0, 0),
        ]

    einval = errno.EINVAL
    expected = [0, 0, errno.EBADF, 0, einval, einval, errno.ENOSYS]
    assert under(programs_for(suppress_sync=True), look) == expected


def test_suppression_prevails_over_the_list():
    programs = programs_for(suppress_sync=True, deny=("@sync",))
    assert under(programs, lambda: errno_in(os.fsync, 999)) == 0


@pytest.mark.parametrize(
    ("families", "deny", "expected"),
    [
        (("AF_UNIX", "AF_NETLINK"), False, [True, False, True, False]),
        (("AF_INET",), False, [False, True, False, False]),
        (("none",), False, [False, False, False, False]),
        (("AF_INET", "AF_PACKET"), True, [True, False, True, False]),
    ],
)
def test_families_are_restricted(families, deny, expected):
    def look() -> list[bool]:
        types = (
            (socket.AF_UNIX, socket.SOCK_STREAM),
            (socket.AF_INET, socket.SOCK_STREAM),
            (socket.AF_NETLINK, socket.SOCK_RAW),
            (socket.AF_PACKET, socket.SOCK_RAW),
        )
        refused = errno.EAFNOSUPPORT
        return [errno_in(lambda kind: socket.socket(*kind).close(), t) != refused for t in types]

    assert under(programs_for(families=families, families_deny=deny), look) == expected


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["keyctl", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 75},
        {"name": "chroot", "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
        {
            "names": ["kill"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 76,
            "args": [
                {"index": 0, "op": "SCMP_CMP_EQ", "value": 0},
                {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0xFE, "valueTwo": 0},
            ],
        },
    ],
}


@only_x86_64
@pytest.mark.parametrize(("capability", "chroot"), [("CAP_SYS_CHROOT", 14), ("CAP_CHOWN", 1)])
def test_a_profile_is_followed(capability, chroot):
    def look() -> list[int]:
        return [
            errno_of(KEYCTL, 99),
            errno_of(161, 0),  # chroot
            errno_of(62, 0, 0),  # kill
            errno_of(62, 0, 1 << 8 | 2),  # no such signal
        ]

    programs = programs_for(parse_names((capability,)), profile=encode(PROFILE))
    assert under(programs, look) == [75, chroot, 76, errno.EINVAL]


def test_a_profile_that_denies_loading_is_loaded_with_the_rest():
    profile = encode(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["prctl"], "action": "SCMP_ACT_ERRNO"}],
        }
    )
    programs = programs_for(profile=profile, suppress_sync=True, families=("AF_UNIX",))
    assert len(programs) == 3
    assert under(programs, lambda: errno_in(os.fsync, 999)) == 0


def test_a_broken_program_is_the_kernels_einval():
    no_return = b"\x20" + bytes(7)  # a load, and then the end
    assert "prctl: Invalid argument" in under((no_return,), lambda: "loaded")


@pytest.mark.parametrize("program", [b"", b"\x06", bytes(8 * 4097)])
def test_what_is_no_program_is_not_given_to_the_kernel(program):
    with pytest.raises(OSError, match="no BPF program") as caught:
        load_filters((program,))
    assert caught.value.errno == errno.EINVAL


def test_the_cached_programs_are_the_compiled_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp_cache, "CACHE_DIR", str(tmp_path / "seccomp"))
    path = seccomp_cache.program_path(0, SeccompSpec())
    with open(path, "rb") as file:
        assert read_programs(file.fileno()) == programs_for()


def test_a_hit_takes_less_than_a_millisecond(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp_cache, "CACHE_DIR", str(tmp_path / "seccomp"))
    seccomp_cache.program_path(0, SeccompSpec())
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        seccomp_cache.program_path(0, SeccompSpec())
        taken.append(time.perf_counter() - began)
    assert sorted(taken)[10] < 0.001
