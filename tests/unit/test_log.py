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


def test_what_is_hushed_shows_no_warnings_whatever_the_level(monkeypatch, capfd):
    monkeypatch.setattr(log, "_hushed", False)
    monkeypatch.setenv("SYSTEMD_LOG_LEVEL", "debug")
    log.warn("one")
    log.hush()
    log.warn("two")
    assert capfd.readouterr().err == "pymachine: one\n"
