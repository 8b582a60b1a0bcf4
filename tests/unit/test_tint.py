"""The look of a machine's terminal: a background that its output knows nothing of."""

from __future__ import annotations

import pytest

from machinectl_py.runtime import tint as tint_module
from machinectl_py.runtime.tint import Tint, takes_color

SET = b"\x1b[44m"


def painted(*pieces):
    tint = Tint("44")
    return b"".join(tint.paint(piece) for piece in pieces)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"SYSTEMD_COLORS": "0"}, False),
        ({"SYSTEMD_COLORS": "16", "NO_COLOR": "1"}, True),
        ({"TERM": "dumb", "SYSTEMD_COLORS": "1"}, False),
    ],
)
def test_whether_there_are_colours_is_for_the_terminal_and_its_user_to_say(
    monkeypatch, variables, wanted
):
    monkeypatch.setattr(tint_module.os, "isatty", lambda _fd: True)
    for name in ("NO_COLOR", "SYSTEMD_COLORS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    assert takes_color(1) is wanted


def test_without_a_colour_output_passes_as_it_is():
    tint = Tint()
    assert (tint.begin(), tint.paint(b"a\n\x1b[0mb"), tint.end()) == (b"", b"a\n\x1b[0mb", b"")


def test_a_line_begins_with_the_background():
    assert painted(b"a\nb") == b"a\n" + SET + b"\x1b[Kb"
    assert painted(b"a\rb") == b"a\r" + SET + b"b"


@pytest.mark.parametrize("reset", ["", "0", "49", "1;0", "41;0", "0;38;5;48", "44;49"])
def test_a_reset_keeps_the_background(reset):
    assert painted(f"\x1b[{reset}mx".encode()) == f"\x1b[{reset};44mx".encode()


@pytest.mark.parametrize("other", ["1", "41", "0;41", "48;5;0", "48;2;0;0;0", "38;2;0;0;0", "7"])
def test_other_colours_are_left_alone(other):
    assert painted(f"\x1b[{other}mx".encode()) == f"\x1b[{other}mx".encode()


def test_a_sequence_may_come_in_pieces():
    whole = b"a\x1b[1;0mb\r\nc\x1b[2Jd"
    pieces = [bytes([byte]) for byte in whole]
    assert painted(*pieces) == painted(whole)
    assert b"\x1b[1;0;44m" in painted(whole)
    assert b"\x1b[2J" in painted(whole)


def test_the_terminal_is_given_back():
    tint = Tint("44", "Title")
    assert tint.begin() == SET + b"\x1b[K\x1b[22;2t\x1b]2;Title\x07"
    assert tint.end() == b"\x1b[0m\x1b[J\x1b[23;2t"


def test_an_endless_sequence_takes_no_memory():
    tint = Tint("44")
    tint.paint(b"\x1b[" + b"1" * 100_000)
    assert len(tint._parameters) <= 64
