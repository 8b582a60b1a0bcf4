"""Errors are one line and a remedy, whatever went wrong, and keep their exit statuses."""

from __future__ import annotations

import errno

import pytest

from machinectl_py.cli.main import report
from machinectl_py.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    NotFoundError,
    PymachineError,
    StepError,
    UnsupportedError,
    UsageError,
)


@pytest.fixture(autouse=True)
def _no_debug(monkeypatch):
    monkeypatch.delenv("PYMACHINE_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *((kind, 1) for kind in (ConfigError, ConflictError, DeniedError, NotFoundError)),
        *((PymachineError, 1), (UnsupportedError, 1), (UsageError, 2)),
    ],
)
def test_an_error_gives_its_line_and_its_status(capfd, kind, status):
    assert report(kind("No image 'x'")) == status
    assert capfd.readouterr() == ("", "pymachine: No image 'x'\n")


def test_a_hint_is_the_second_line(capfd):
    report(NotFoundError("No image 'x'", "pymachine pull debian"))
    assert capfd.readouterr().err == "pymachine: No image 'x'\nhint: pymachine pull debian\n"


def test_a_message_of_several_lines_becomes_one(capfd):
    report(PymachineError("mmdebstrap failed:\n  E: no\n"))
    assert capfd.readouterr().err == "pymachine: mmdebstrap failed: E: no\n"


def test_the_kernels_errors_name_their_file(capfd):
    assert report(OSError(errno.ENOSPC, "No space left on device", "/var/lib/machines/x")) == 1
    expected = "pymachine: /var/lib/machines/x: No space left on device\n"
    assert capfd.readouterr().err == expected


def test_an_interrupt_is_told_without_a_traceback(capfd):
    assert report(KeyboardInterrupt()) == 1
    assert capfd.readouterr().err == "pymachine: Interrupted\n"


def test_an_error_of_ours_says_how_to_see_more(capfd):
    assert report(ZeroDivisionError("division by zero")) == 1
    shown = capfd.readouterr().err
    assert shown.startswith("pymachine: Internal error: ZeroDivisionError: division by zero\n")
    assert "PYMACHINE_DEBUG=1" in shown


def test_debug_shows_the_traceback_as_well(capfd, monkeypatch):
    monkeypatch.setenv("PYMACHINE_DEBUG", "1")
    try:
        raise ConflictError("It runs already")
    except ConflictError as error:
        report(error)
    shown = capfd.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("pymachine: It runs already\n")


def test_a_name_that_is_no_text_can_be_told(capfdbinary):
    report(NotFoundError("No image '" + b"\xff".decode(errors="surrogateescape") + "'"))
    assert capfdbinary.readouterr().err == b"pymachine: No image '\xff'\n"


def test_a_failed_step_says_which_and_survives_as_data():
    error = StepError(
        step="root.overlay",
        index=14,
        total=31,
        place="inside",
        act="mount overlay on /",
        cause="Invalid argument",
        errno=errno.EINVAL,
    )
    expected = "Failed to mount overlay on /: Invalid argument (step 14 of 31, inside)"
    assert error.message == expected
    assert StepError(**error.to_data()).to_data() == error.to_data()
