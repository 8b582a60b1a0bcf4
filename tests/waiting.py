"""Waiting in tests for what comes of itself, and not for longer than makes sense."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Seconds; a boot takes 0.3 to 0.5 s, but a host may be busy with other tests.
PATIENCE = 30.0
_STEP = 0.01


def wait_for(
    condition: Callable[[], Any],
    what: str | Callable[[], str] = "it does not come",
    patience: float = PATIENCE,
) -> Any:
    """Return what a condition gives once that is true; fail after some seconds, telling `what`."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(_STEP)
    return found
