"""The cache of compiled seccomp programs: hit, miss, and what it does not trust."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from machinectl_py.config.spec import SeccompSpec
from machinectl_py.errors import ConfigError, DeniedError, PymachineError
from machinectl_py.kernel.seccomp import read_programs, write_programs
from machinectl_py.plan import seccomp_cache

RETURN_ALLOW = b"\x06\0\0\0\0\0\xff\x7f"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Point the cache at a directory of the test's own, and count what is compiled."""
    calls = []

    def compile_programs(capabilities: int, seccomp: SeccompSpec) -> tuple[bytes, ...]:
        calls.append((capabilities, seccomp))
        return (RETURN_ALLOW, RETURN_ALLOW * 3)

    monkeypatch.setattr(seccomp_cache, "CACHE_DIR", str(tmp_path / "cache" / "seccomp"))
    monkeypatch.setattr(seccomp_cache, "FALLBACK_DIR", str(tmp_path / "run" / "seccomp"))
    monkeypatch.setattr(seccomp_cache, "compile_programs", compile_programs)
    return calls


def programs_in(path: str) -> tuple[bytes, ...]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_programs(fd)
    finally:
        os.close(fd)


def test_what_was_compiled_once_is_found(compiled):
    first = seccomp_cache.program_path(1, SeccompSpec())
    assert seccomp_cache.program_path(1, SeccompSpec()) == first
    assert len(compiled) == 1
    assert programs_in(first) == (RETURN_ALLOW, RETURN_ALLOW * 3)


def test_only_its_owner_can_write_a_file_whatever_the_umask(compiled):
    mask = os.umask(0)
    try:
        path = Path(seccomp_cache.program_path(1, SeccompSpec()))
        assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.parent.parent.stat().st_mode & 0o777 == 0o755
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("capabilities", "spec"),
    [
        (2, SeccompSpec()),
        (1, SeccompSpec(allow=("bpf",))),
        (1, SeccompSpec(deny=("bpf",))),
        (1, SeccompSpec(suppress_sync=True)),
        (1, SeccompSpec(families=("AF_UNIX",))),
        (1, SeccompSpec(profile="{}")),
    ],
)
def test_each_input_has_programs_of_its_own(compiled, capabilities, spec):
    default = seccomp_cache.program_path(1, SeccompSpec())
    assert seccomp_cache.program_path(capabilities, spec) != default
    assert len(compiled) == 2


def test_another_libseccomp_compiles_anew(compiled, tmp_path, monkeypatch):
    library = tmp_path / "libseccomp.so.2"
    library.write_bytes(b"old")
    monkeypatch.setattr(seccomp_cache, "_libseccomp", lambda: str(library))
    old = seccomp_cache.program_path(1, SeccompSpec())
    library.write_bytes(b"newer")
    assert seccomp_cache.program_path(1, SeccompSpec()) != old


def test_another_pymachine_compiles_anew(compiled, monkeypatch):
    old = seccomp_cache.program_path(1, SeccompSpec())
    monkeypatch.setattr(seccomp_cache, "__version__", "999")
    assert seccomp_cache.program_path(1, SeccompSpec()) != old


@pytest.mark.parametrize("damage", [b"", b"PYMBPF1\n", RETURN_ALLOW * 20])
def test_a_damaged_file_is_compiled_anew(compiled, damage):
    path = seccomp_cache.program_path(1, SeccompSpec())
    Path(path).write_bytes(damage)
    assert seccomp_cache.program_path(1, SeccompSpec()) == path
    assert len(compiled) == 2
    assert programs_in(path) == (RETURN_ALLOW, RETURN_ALLOW * 3)


def test_one_flipped_bit_is_noticed(compiled):
    path = Path(seccomp_cache.program_path(1, SeccompSpec()))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="damaged"):
        programs_in(str(path))


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_compiled_anew(compiled, mode):
    path = Path(seccomp_cache.program_path(1, SeccompSpec()))
    path.chmod(mode)
    seccomp_cache.program_path(1, SeccompSpec())
    assert len(compiled) == 2
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_symbolic_link_is_replaced_not_followed(compiled, tmp_path):
    path = Path(seccomp_cache.program_path(1, SeccompSpec()))
    target = tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    seccomp_cache.program_path(1, SeccompSpec())
    assert len(compiled) == 2
    assert not path.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="chown(2) needs root")
def test_a_file_of_another_user_is_compiled_anew(compiled):
    path = seccomp_cache.program_path(1, SeccompSpec())
    os.chown(path, 65534, 65534)
    seccomp_cache.program_path(1, SeccompSpec())
    assert len(compiled) == 2
    assert Path(path).stat().st_uid == 0


def test_a_directory_that_others_can_write_is_refused(compiled):
    path = Path(seccomp_cache.program_path(1, SeccompSpec()))
    path.parent.chmod(0o777)
    with pytest.raises(DeniedError, match="can be written by others"):
        seccomp_cache.program_path(1, SeccompSpec())


def test_where_the_cache_cannot_be_written_run_serves(compiled, tmp_path):
    (tmp_path / "cache").write_text("no directory")
    path = seccomp_cache.program_path(1, SeccompSpec())
    assert path.startswith(f"{tmp_path}/run/seccomp/")
    assert seccomp_cache.program_path(1, SeccompSpec()) == path
    assert len(compiled) == 1


def test_no_room_anywhere_is_one_line_and_leaves_nothing(compiled, tmp_path, monkeypatch):
    def no_room(fd: int, programs: tuple[bytes, ...]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seccomp_cache.kernel, "write_programs", no_room)
    with pytest.raises(PymachineError, match=r"^Failed to store the seccomp programs: .*No space"):
        seccomp_cache.program_path(1, SeccompSpec())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_unknown_call_is_refused_and_nothing_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp_cache, "CACHE_DIR", str(tmp_path / "seccomp"))
    with pytest.raises(ConfigError, match="no system call 'nonesuch'"):
        seccomp_cache.program_path(1, SeccompSpec(allow=("nonesuch",)))
    assert list(tmp_path.iterdir()) == []


def test_programs_keep_their_order_and_bounds(tmp_path):
    programs = (RETURN_ALLOW * 4096, RETURN_ALLOW, RETURN_ALLOW * 2)
    with open(tmp_path / "programs", "wb") as file:
        write_programs(file.fileno(), programs)
    assert programs_in(str(tmp_path / "programs")) == programs


HIT = """
import sys
sys.path.insert(0, {root!r})
from machinectl_py.config.spec import SeccompSpec
from machinectl_py.plan import seccomp_cache
seccomp_cache.CACHE_DIR = {directory!r}
seccomp_cache.program_path(1, SeccompSpec())
heavy = "seccomp pyseccomp hashlib machinectl_py.plan.syscalls machinectl_py.thirdparty re json"
print([name for name in heavy.split() if name in sys.modules])
"""


def test_a_hit_imports_neither_libseccomp_nor_the_tables(compiled):
    seccomp_cache.program_path(1, SeccompSpec())
    script = HIT.format(root=str(ROOT), directory=seccomp_cache.CACHE_DIR)
    done = subprocess.run(
        [sys.executable, "-SI", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
