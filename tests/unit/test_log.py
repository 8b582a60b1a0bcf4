"""$SYSTEMD_LOG_LEVEL says which messages are shown, as to systemd's tools."""

from __future__ import annotations

import pytest

from machinectl_py import log


@pytest.mark.parametrize(
    ("level", "warnings", "info"),
    [
        ("", True, True),
        ("debug", True, True),
        ("6", True, True),
        ("notice", True, False),
        ("warning", True, False),
        ("err", False, False),
        ("0", False, False),
        ("debug,console:err", False, False),
        ("journal:err", True, True),
        ("nonsense", True, True),
    ],
)
def test_a_level_hides_what_is_below_it(monkeypatch, level, warnings, info):
    monkeypatch.setenv("SYSTEMD_LOG_LEVEL", level)
    assert (log.shows_warnings(), log.shows_info()) == (warnings, info)
