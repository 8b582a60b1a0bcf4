"""Integration tests run apart from the machine's other doings, and may leave nothing behind."""

from __future__ import annotations

import os

import pytest

from tests.hosts import apart
from tests.integration import leaks

_reaper = pytest.StashKey[int]()


def pytest_configure(config):
    if os.geteuid() != 0:
        return
    config.stash[_reaper] = apart.become_child_of_a_reaper()
    if not apart.systemd_runs():  # whose units would not see what we mount
        apart.private_mounts()
        apart.private_state()


@pytest.fixture(scope="session")
def reaper(request):
    """The process below which all processes are of the tests; None without root."""
    return request.config.stash.get(_reaper, None)


@pytest.fixture(autouse=True)
def leaves_nothing(reaper):
    """Fail a test that leaves anything of a machine behind."""
    if reaper is None:
        yield
        return
    before = leaks.snapshot(reaper)
    yield
    left = leaks.leaked(before, reaper)
    assert not left, "left behind:\n" + "\n".join(left)
