"""A service manager that asks for signs of life gets them in time; sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import posix
import socket
import time

import pytest

from machinectl_py.runtime.watch import Watchdog


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Give the manager's socket, and a way to set our environment as it was at the start."""
    for name in (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID"):
        monkeypatch.delitem(posix.environ, name, raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setitem(posix.environ, b"NOTIFY_SOCKET", os.fsencode(tmp_path / "notify"))
        yield listening


def test_it_is_told_twice_in_the_time_that_it_gives(manager, monkeypatch):
    monkeypatch.setitem(posix.environ, b"WATCHDOG_USEC", b"400000")
    monkeypatch.setitem(posix.environ, b"WATCHDOG_PID", str(os.getpid()).encode())
    watchdog = Watchdog()
    watchdog.look()
    assert manager.recv(100) == b"WATCHDOG=1"
    watchdog.look()
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    assert 100 < watchdog.patience() <= 201
    time.sleep(watchdog.patience() / 1000)
    watchdog.look()
    assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {b"WATCHDOG_USEC": b"0"},
        {b"WATCHDOG_USEC": b"soon"},
        {b"WATCHDOG_USEC": b"1000", b"WATCHDOG_PID": b"1"},  # another's, that we have inherited
    ],
)
def test_who_is_not_asked_says_nothing(manager, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setitem(posix.environ, name, value)
    watchdog = Watchdog()
    assert watchdog.patience() is None
    watchdog.look()
    with pytest.raises(BlockingIOError):
        manager.recv(100)
