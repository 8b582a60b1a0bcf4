"""Standard streams that are full, closed or gone: one line and exit status 1, or none at all."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import COMMAND

WORDS = ("--help", "boot --help", "list --json=pretty")


def run(words, redirection):
    script = f'exec "$@" {redirection}'
    shell = ("/bin/sh", "-c", script, "sh", *COMMAND, *words.split())
    return subprocess.run(shell, check=False, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_output_that_cannot_be_written_is_told_in_a_line(words, redirection, reason):
    done = run(words, redirection)
    assert (done.returncode, done.stderr) == (1, f"pymachine: standard output: {reason}\n")


@pytest.mark.parametrize("words", WORDS)
def test_output_that_nobody_reads_is_no_more_to_say(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *words.split()], check=False, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_without_any_stream_a_wrong_command_line_has_its_status():
    assert run("no-such-verb", "<&- >&- 2>&-").returncode == 2


def test_without_input_and_errors_the_output_is_whole():
    done = run("--help", "<&- 2>&-")
    assert (done.returncode, done.stdout) == (0, run("--help", "").stdout)


def test_a_locale_without_the_letters_of_ours_changes_nothing(monkeypatch):
    plain = run("--help", "").stdout
    monkeypatch.setenv("LC_ALL", "POSIX")
    assert run("--help", "").stdout == plain
