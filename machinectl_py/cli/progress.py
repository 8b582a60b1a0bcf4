"""Long work, shown on standard error: one line that renews itself, or plain lines."""

from __future__ import annotations

import os
import sys
import time

_REDRAW = 0.05  # seconds: oftener nobody can read


class ProgressLine:
    """Shows what is being done; on a terminal in one line, elsewhere a line for each phase."""

    def __init__(self, title: str) -> None:
        """Start the clock; `title` begins every line."""
        self.title = title
        self.started = time.monotonic()
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._phases: set[str] = set()
        self._shown = ""
        self._drawn = 0.0

    def __call__(self, phase: str, detail: str) -> None:
        """Show a phase, and how far it is ("" if that is not known)."""
        if self._terminal:
            counted = f", {detail}" if detail else ""
            if phase not in self._phases or time.monotonic() - self._drawn > _REDRAW:
                self._draw(f"{self.title}: {phase}{counted} ({self.seconds():.0f} s)")
        elif phase not in self._phases:
            self._write(f"{self.title}: {phase}\n")
        self._phases.add(phase)

    def seconds(self) -> float:
        """Return the time since the start, in seconds."""
        return time.monotonic() - self.started

    def clear(self) -> None:
        """Take the line away, before anything else is written."""
        if self._shown:
            self._write("\r\033[K")
            self._shown = ""

    def _draw(self, text: str) -> None:
        try:
            text = text[: os.get_terminal_size(2).columns - 1]  # a wrapped line cannot be redrawn
        except OSError:
            pass
        if text != self._shown:
            self._write(f"\r{text}\033[K")
            self._shown = text
        self._drawn = time.monotonic()

    @staticmethod
    def _write(text: str) -> None:
        try:
            os.write(2, text.encode(errors="replace"))
        except OSError:  # nobody looks any more: no reason to stop
            pass
