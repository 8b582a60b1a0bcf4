"""No comparison may leave anything of a machine behind, be it of ours or of a peer's."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def clean(leaves_nothing):
    """See `leaves_nothing`."""
