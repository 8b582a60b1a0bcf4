"""No integration test may leave anything of a machine behind."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.integration.networks import lone_host, network


@pytest.fixture(autouse=True)
def room(request):
    """Remove a test's temporary files when all is over: in a container host, /tmp is small.

    pytest keeps them to the end of the run, and before 7.3 cannot be told otherwise.
    """
    path = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if path is not None:
        subprocess.run(["rm", "-rf", "--one-file-system", path], check=False, capture_output=True)


@pytest.fixture(autouse=True)
def clean(room, leaves_nothing):
    """See `leaves_nothing`."""


@pytest.fixture
def world():
    """What is outside: it knows the host, but none of its networks."""
    with network() as found:
        found.ip("link set lo up")
        yield found


@pytest.fixture
def host(world):
    """See `lone_host`."""
    with lone_host(world) as found:
        yield found


@pytest.fixture
def name():
    """A name for a machine, short enough for its links to have it whole."""
    return f"m{os.getpid() % 100000}"
