"""The state of machines on disk: whole or not there, and true to the lock."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from machinectl_py import layout
from machinectl_py.errors import ConflictError, NotFoundError
from machinectl_py.kernel.locks import drop_lock, take_lock
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.runtime import state as module
from machinectl_py.runtime.state import MachineState, NotifyState, TraceEntry


@pytest.fixture(autouse=True)
def _run_directory(tmp_path, monkeypatch):
    """Keep state below a directory of this test."""
    monkeypatch.setattr(layout, "MACHINES_DIR", f"{tmp_path}/machines")
    monkeypatch.setattr(layout, "LOCK_DIR", f"{tmp_path}/locks")
    monkeypatch.setattr(module, "MACHINES_DIR", f"{tmp_path}/machines")
    monkeypatch.setattr(module, "LOCK_DIR", f"{tmp_path}/locks")
    (tmp_path / "machines" / "m").mkdir(parents=True)
    (tmp_path / "locks").mkdir()


@pytest.fixture
def state():
    return MachineState(
        name="m",
        leader=os.getpid(),
        leader_start=start_ticks(os.getpid()),
        supervisor=os.getpid(),
        phase="running",
        root="/var/lib/machines/m",
        machine_id="0" * 32,
        kind="boot",
        manager="embedded",
        unit="",
        cgroup="/sys/fs/cgroup/pymachine/m",
        registered=False,
        private_network=True,
        capabilities=(1 << 41) - 1,
        no_new_privileges=False,
        seccomp="",
        started=1,
        started_monotonic=2,
        clock_offset=-3,
    )


@pytest.fixture
def lock():
    """Hold the machine's lock, as a supervisor does."""
    fd = take_lock(layout.lock_path("m"))
    yield fd
    drop_lock(layout.lock_path("m"), fd)


def test_a_state_is_read_as_written(state):
    module.write_state(state)
    assert module.read_state("m") == state


def test_a_file_is_replaced_as_a_whole_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as held:
        module.write_whole(str(path), "new")
        assert held.read() == "old"
    assert path.read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["file", "locks", "machines"]


def test_long_text_is_written_to_its_end(tmp_path):
    text = "ä" * (1 << 21)
    module.write_whole(str(tmp_path / "file"), text)
    assert module.read_text(str(tmp_path / "file")) == text


def test_what_was_not_told_yet_is_empty():
    assert module.read_notify("m") == NotifyState()
    assert module.read_trace("m") == ()


def test_a_trace_is_read_as_tuples_of_records(tmp_path):
    entry = TraceEntry(index=1, name="a", place="inside", describe="b", start=1, duration=2)
    module.write_whole(
        f"{layout.machine_dir('m')}/trace.json", module.encode([entry.to_data(), entry.to_data()])
    )
    assert module.read_trace("m") == (entry, entry)


def test_names_are_sorted_and_none_without_the_directory(tmp_path, monkeypatch):
    (tmp_path / "machines" / "a").mkdir()
    (tmp_path / "locks" / "b").touch()
    assert module.machine_names() == ("a", "b", "m")
    monkeypatch.setattr(module, "MACHINES_DIR", f"{tmp_path}/none")
    monkeypatch.setattr(module, "LOCK_DIR", f"{tmp_path}/none")
    assert module.machine_names() == ()


def test_a_machine_whose_lock_is_held_runs(state, lock):
    module.write_state(state)
    assert module.is_supervised("m")
    assert module.find_running("m") == state
    assert module.require_running("m") == state
    assert module.running_machines() == (state,)


def test_the_lock_is_seen_from_another_process(state, lock):
    code = (
        "import sys; from machinectl_py.kernel.locks import is_locked;"
        f"sys.exit(not is_locked({layout.lock_path('m')!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_machine_without_a_state_yet_is_being_started(lock):
    assert module.find_running("m") is None
    with pytest.raises(ConflictError, match="'m' is still being started"):
        module.require_running("m")


def test_a_used_again_pid_is_no_leader(state, lock):
    other = state.replace(leader_start=state.leader_start + 1)
    module.write_state(other)
    assert module.leader_alive(state)
    assert not module.leader_alive(other)
    with pytest.raises(ConflictError, match="being stopped or restarted"):
        module.require_running("m")


def test_a_leader_not_yet_born_is_not_alive(state):
    assert not module.leader_alive(state.replace(leader=0))


def test_no_machine_is_told_with_the_remedy():
    with pytest.raises(NotFoundError, match="No machine 'x' is running") as raised:
        module.require_running("x")
    assert "pymachine list" in raised.value.hint
