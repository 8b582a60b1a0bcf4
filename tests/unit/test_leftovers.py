"""What killed test runs left is removed by the next, and nothing of those that live."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.hosts import leftovers


@pytest.fixture
def dead():
    """The PID of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_directories_of_dead_runs_go(tmp_path, dead, monkeypatch):
    monkeypatch.setattr(leftovers, "PLACE", tmp_path)
    monkeypatch.setattr(leftovers, "V1_HIERARCHY", tmp_path / "none")
    ours = leftovers.make_directory("tree")
    for name in (f"pymachine-pool-{dead}-x", f"pymachine-tests-{dead}", "pymachine-tree-old", "x"):
        (tmp_path / name / "inner").mkdir(parents=True)
    leftovers.sweep(tmp_path / "no-cgroups")
    left = {ours.name, f"pymachine-tests-{dead}", "pymachine-tree-old", "x"}
    assert set(os.listdir(tmp_path)) == left


def test_a_cgroup_is_removed_with_those_below_it(tmp_path):
    (tmp_path / "run/supervisor/deep").mkdir(parents=True)
    leftovers.remove_cgroup(tmp_path / "run")
    assert os.listdir(tmp_path) == []
