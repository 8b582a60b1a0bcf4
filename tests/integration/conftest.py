"""No integration test may leave anything of a machine behind."""

from __future__ import annotations

import os

import pytest

from tests.integration.networks import lone_host, network


@pytest.fixture(autouse=True)
def clean(leaves_nothing):
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
