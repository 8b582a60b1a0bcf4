"""No integration test may leave anything of a machine behind."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def clean(leaves_nothing):
    """See `leaves_nothing`."""
