"""Which messages the user wants to see, by $SYSTEMD_LOG_LEVEL as for systemd's tools; errors all.

The variable is a level by name or number, or several with commas between, of which one may be
for the "console": "debug", "4", "debug,console:warning".
"""

from __future__ import annotations

import os

_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_WARNING, _INFO = 4, 6
_hushed = False


def hush() -> None:
    """Have this process show errors alone, as --quiet asks where success has no message."""
    global _hushed  # as the environment is: one for the whole process
    _hushed = True


def shows_warnings() -> bool:
    """Say whether warnings are to be shown."""
    return not _hushed and _level() >= _WARNING


def warn(text: str) -> None:
    """Tell something that is no reason to stop."""
    if shows_warnings():
        os.write(2, f"pymachine: {text}\n".encode(errors="surrogateescape"))


def shows_info() -> bool:
    """Say whether messages of success are to be shown."""
    return _level() >= _INFO


def _level() -> int:
    level = console = -1
    for word in os.environ.get("SYSTEMD_LOG_LEVEL", "").split(","):
        target, colon, name = word.rpartition(":")
        number = int(name) if name.isascii() and name.isdigit() and len(name) == 1 else -1
        number = _LEVELS.index(name) if name in _LEVELS else number
        if target == "console":
            console = number
        elif not colon:
            level = number
    found = console if console >= 0 else level
    return found if found >= 0 else _INFO
