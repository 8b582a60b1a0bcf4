"""Order of version strings; https://uapi-group.org/specifications/specs/version_format_specification/."""

from __future__ import annotations

_DIGITS = "0123456789"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SEPARATORS = "~-^."


def compare_versions(one: str, other: str) -> int:
    """Return -1, 0 or 1 as `one` is older than, the same as or newer than `other`."""
    while True:
        one, other = _relevant(one), _relevant(other)
        if not one and not other:
            return 0
        # Of these in their order, the version that has it now, and the other not, is older; "" is
        # the end.
        for separator in ("~", "", "-", "^", "."):
            ours = not one if not separator else one.startswith(separator)
            theirs = not other if not separator else other.startswith(separator)
            if ours != theirs:
                return -1 if ours else 1
            if ours and separator:
                one, other = one[1:], other[1:]
                break
        else:
            kind = _DIGITS if one[0] in _DIGITS or other[0] in _DIGITS else _LETTERS
            left, one = _leading(one, kind)
            right, other = _leading(other, kind)
            if kind is _DIGITS:
                left, right = _significant(left), _significant(right)
                if len(left) != len(right):
                    return 1 if len(left) > len(right) else -1
            if left != right:
                return 1 if left > right else -1


def _relevant(text: str) -> str:
    """Drop what separates parts without a meaning, such as the underscore."""
    at = 0
    while at < len(text) and text[at] not in _DIGITS + _LETTERS + _SEPARATORS:
        at += 1
    return text[at:]


def _leading(text: str, kind: str) -> tuple[str, str]:
    at = 0
    while at < len(text) and text[at] in kind:
        at += 1
    return text[:at], text[at:]


def _significant(digits: str) -> str:
    """Drop leading zeros; "" is no number, and less than 0."""
    return digits.lstrip("0") or digits[:1]
