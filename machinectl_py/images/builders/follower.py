"""Follows package managers that say of each package "(3/12) installing x", or the like."""

from __future__ import annotations

import re

from machinectl_py.record import Record

# The last is curl's, whose cause is hardly ever another.
_NO_SPACE = (
    "No space left on device",
    "not enough free disk space",
    "space needed on",
    "Failure writing output to destination",
)


class Phrases(Record):
    """What a program says."""

    program: str
    phases: tuple[tuple[str, str], ...]  # what a line begins with, and what is done from then on
    counted: str  # regular expression of a line with two groups: how many of how many packages
    errors: tuple[str, ...]  # what lines begin with that say why it failed
    causes: str = "$^"  # regular expression of other such lines


class Counter:
    """Follows such output line by line: how far it is, and why it failed."""

    def __init__(self, phrases: Phrases) -> None:
        """Start before the first line."""
        self._phrases, self._counted = phrases, re.compile(phrases.counted)
        self._causes = re.compile(phrases.causes)
        self._phase, self._detail = f"starting {phrases.program}", ""
        self.cause = ""  # the first error: what follows it is but its echo
        self.no_space = False

    def see(self, line: str) -> None:
        """Take a line in."""
        line = line.strip()
        for start, phase in self._phrases.phases:
            if line.startswith(start):
                self._phase, self._detail = phase, ""
        if found := self._counted.search(line):
            self._detail = f"{found[1]} of {found[2]}"
        for start in self._phrases.errors:
            if line.startswith(start) and not self.cause:
                self.cause = line.removeprefix(start).strip() or line
        if self._causes.search(line) and not self.cause:
            self.cause = line
        if any(text in line for text in _NO_SPACE):
            self.no_space = True

    def doing(self) -> str:
        """Return what is being done."""
        return self._phase

    def detail(self) -> str:
        """Return how far that is, "" where it is not known."""
        return self._detail
