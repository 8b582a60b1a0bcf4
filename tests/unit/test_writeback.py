"""What is written out while it is being made."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from machinectl_py.images.transfer import writeback
from machinectl_py.images.transfer.writeback import Writeback
from machinectl_py.kernel.writeback import start_writeback, sync_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeback, "_PAUSE", 0.001)


@pytest.fixture
def directory(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


def test_is_done_again_and_again(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    thrice = threading.Semaphore(0)
    monkeypatch.setattr(writeback, "sync_filesystem", lambda _fd, _path: thrice.release())
    with Writeback(directory):
        for _ in range(3):
            assert thrice.acquire(timeout=10)


def test_what_failed_is_raised_at_the_end(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(_fd: int, path: str) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(writeback, "sync_filesystem", fail)
    with pytest.raises(OSError, match="Input/output error"), Writeback(directory):
        assert failed.wait(10)


def test_an_error_of_the_block_comes_first(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def fail(_fd: int, path: str) -> None:
        begun.set()
        goes_on.wait(10)
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(writeback, "sync_filesystem", fail)
    thread = Writeback(directory)

    def block() -> None:
        with thread:
            assert begun.wait(10)
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert thread.is_alive(), "it was waited for"
    goes_on.set()
    thread.join()


@pytest.mark.parametrize(
    ("kind", "called"),
    [("file", {"start_writeback"}), ("directory", {"sync_filesystem"}), ("pipe", set())],
)
def test_kinds(
    kind: str, called: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes all of them, or is not asked; the caller's descriptor stays open."""
    seen: set[str] = set()

    def watch(name: str) -> None:
        real = getattr(writeback, name)

        def call(*words: object) -> None:
            real(*words)
            seen.add(name)

        monkeypatch.setattr(writeback, name, call)

    for name in ("start_writeback", "sync_filesystem"):
        watch(name)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    fds = {
        "file": os.open(tmp_path / "file", os.O_RDWR),
        "directory": os.open(tmp_path, os.O_RDONLY),
        "pipe": os.pipe()[1],
    }
    fd = fds[kind]
    thread = Writeback(fd)
    with thread:
        thread._over.wait(0.2)
    assert seen == called
    os.fstat(fd)
    assert not thread.is_alive()


def test_without_threads_there_is_none(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> None:
        raise RuntimeError("can't start new thread")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    with Writeback(directory):
        pass
    assert os.listdir("/proc/self/fd") == before


def test_a_pipe_has_nothing_to_be_written_back() -> None:
    with pytest.raises(OSError, match="sync_file_range") as caught:
        start_writeback(os.pipe()[0])
    assert caught.value.errno == errno.ESPIPE


def test_what_is_no_file_is_told_by_its_path(directory: int) -> None:
    sync_filesystem(directory, "/srv")
    with pytest.raises(OSError, match="syncfs") as caught:
        sync_filesystem(-1, "/srv")
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, "/srv")
