"""How a machine's terminal looks inside ours: background and window title; console_codes(4)."""

from __future__ import annotations

import os

_ESCAPE, _NEWLINE, _RETURN, _BELL = 0x1B, 0x0A, 0x0D, 0x07
_LONGEST = 64  # bytes of a control sequence that we remember
_ERASE_LINE, _ERASE_SCREEN, _NORMAL = b"\x1b[K", b"\x1b[J", b"\x1b[0m"
_NO = ("0", "no", "n", "false", "f", "off")
_PUSH_TITLE, _POP_TITLE = b"\x1b[22;2t", b"\x1b[23;2t"


def takes_color(fd: int) -> bool:
    """Say whether a descriptor is a terminal that knows colours, which its user wants."""
    dumb = os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")
    # systemd's own variable comes before that of all tools; https://no-color.org
    asked = os.environ.get("SYSTEMD_COLORS", "").lower()
    refused = asked in _NO if asked else bool(os.environ.get("NO_COLOR"))
    return os.isatty(fd) and not dumb and not refused


class Tint:
    """Keeps a background under output that knows nothing of it, which comes in pieces."""

    def __init__(self, color: str = "", title: str = "") -> None:
        """Take the parameters of an SGR sequence for the background, and the window's title."""
        self._color, self._title = color.encode(), title.encode()
        self._set = b"\x1b[" + self._color + b"m"
        self._state = "text"  # "escape", "sequence"; or what the next byte comes after
        self._parameters = bytearray()

    def begin(self) -> bytes:
        """Return what goes before all output."""
        color = self._set + _ERASE_LINE if self._color else b""
        title = _PUSH_TITLE + b"\x1b]2;" + self._title + b"\x07" if self._title else b""
        return color + title

    def end(self) -> bytes:
        """Return what gives the terminal back."""
        color = _NORMAL + _ERASE_SCREEN if self._color else b""
        return color + (_POP_TITLE if self._title else b"")

    def paint(self, data: bytes) -> bytes:
        """Return output with the background set again wherever it was lost."""
        if not self._color:
            return data
        painted = bytearray()
        for byte in data:
            painted += self._before(byte)
            painted.append(byte)
        return bytes(painted)

    def _before(self, byte: int) -> bytes:
        """Return what is to stand before a byte, and go on to the state after it."""
        state, self._state = self._state, "text"
        if state == "escape" and byte == ord("["):
            self._state = "sequence"
            self._parameters.clear()
            return b""
        if state == "sequence":
            return self._in_sequence(byte)
        if byte == _ESCAPE:
            self._state = "escape"
        elif byte == _NEWLINE:
            self._state = "line"
        elif byte == _RETURN:
            self._state = "return"
        if state == "line":
            return self._set + _ERASE_LINE
        return self._set if state == "return" else b""

    def _in_sequence(self, byte: int) -> bytes:
        if 0x20 <= byte <= 0x3F:  # a parameter, or an intermediate byte
            if len(self._parameters) < _LONGEST:
                self._parameters.append(byte)
                self._state = "sequence"
            return b""
        if byte == ord("m") and _resets_background(self._parameters.decode()):
            return b";" + self._color
        return b""


def _resets_background(parameters: str) -> bool:
    """Say whether the parameters of an SGR sequence leave the background at its default."""
    reset = False
    words = iter(parameters.split(";"))
    for word in words:
        if word in ("38", "48", "58"):  # a colour by its number, or by red, green and blue
            kind = next(words, "")
            for _ in range({"5": 1, "2": 3}.get(kind.lstrip("0"), 0)):
                next(words, "")
            reset = reset and word != "48"
        elif word.lstrip("0") == "" or word == "49":
            reset = True
        elif len(word) == 2 and word.startswith("4") and word < "48":
            reset = False
    return reset
