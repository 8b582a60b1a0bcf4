"""Locks of machines: who starts one is told of a supervisor, but waits for a verb that removes."""

from __future__ import annotations

import threading

import pytest

from machinectl_py.errors import ConflictError
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.plan.context import Context, Hooks
from machinectl_py.plan.steps import host


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "LOCK_DIR", str(tmp_path))
    monkeypatch.setattr(host, "lock_path", lambda name: str(tmp_path / name))
    return str(tmp_path / "m")


def test_the_whole_lock_is_held_once(path):
    lock = take_lock(path)
    assert is_locked(path)
    assert take_lock(path) is None
    assert take_lock(path, start=1) is None
    drop_lock(path, lock)
    assert not is_locked(path)


def test_a_lock_of_the_rest_shuts_out_both_but_is_no_supervisors(path):
    lock = take_lock(path, start=1)
    assert not is_locked(path)
    assert take_lock(path) is None
    assert take_lock(path, start=1) is None
    drop_lock(path, lock)


def test_a_start_is_refused_while_a_supervisor_lives(path):
    lock = take_lock(path)
    with pytest.raises(ConflictError, match="'m' is running already"):
        host.LockMachine(machine="m").apply(Context(Hooks()))
    drop_lock(path, lock)


def test_a_start_waits_until_what_is_left_was_removed(path):
    removing = take_lock(path, start=1)
    timer = threading.Timer(0.1, drop_lock, (path, removing))
    timer.start()
    context = Context(Hooks())
    host.LockMachine(machine="m").apply(context)
    timer.join()
    assert is_locked(path)
    drop_lock(path, context.number("lock"))
