"""Values of settings from text and back, one pair of functions for each simple kind.

A reader raises `ValueError` that says what it expects; `kinds.py` names the readers and writers.
"""

from __future__ import annotations

import os

from machinectl_py.config.words import split_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_USER = _LABEL | {"."}
_HEX = frozenset("0123456789abcdefABCDEF")
_BACKGROUND = frozenset("0123456789;")
_MOST_ID = 0xFFFFFFFF  # (uid_t) -1, which is no id
# systemd.time(7), in nanoseconds.
_SPANS = {
    **dict.fromkeys(("nsec", "ns"), 1),
    **dict.fromkeys(("usec", "us", "µs"), 1_000),
    **dict.fromkeys(("msec", "ms"), 1_000_000),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1_000_000_000),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60_000_000_000),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3_600_000_000_000),
    **dict.fromkeys(("days", "day", "d"), 86_400_000_000_000),
    **dict.fromkeys(("weeks", "week", "w"), 604_800_000_000_000),
}
_MOST_NANOSECONDS = 1 << 62
_SIZES = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
LINK_JOURNAL = ("no", "auto", "host", "guest", "try-host", "try-guest")
RESOLV_CONF = (
    *("off", "copy-host", "copy-static", "copy-uplink", "copy-stub", "replace-host"),
    *("replace-static", "replace-uplink", "replace-stub", "bind-host", "bind-static"),
    *("bind-uplink", "bind-stub", "delete", "auto"),
)
TIMEZONE = ("off", "copy", "bind", "symlink", "delete", "auto")
CONSOLE = ("interactive", "read-only", "passive", "pipe", "autopipe")
OWNERSHIP = ("off", "chown", "map", "foreign", "auto")
VOLATILE = ("no", "yes", "state", "overlay")
PERSONALITIES = (
    *("x86", "x86-64", "ppc", "ppc-le", "ppc64", "ppc64-le", "s390", "s390x", "arm", "arm64"),
    *("mips", "mips-le", "mips64", "mips64-le", "riscv32", "riscv64", "sparc", "sparc64"),
)


def boolean(text: str) -> bool:
    """Return a truth value as systemd's files have it."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("yes or no")


def from_boolean(value: bool) -> str:
    """Return the text of a truth value."""
    return "yes" if value else "no"


def clean(text: str) -> str:
    """Return a text without control characters."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueError("text without control characters")
    return text


def path(text: str) -> str:
    """Return a path, made absolute by the working directory and simplified."""
    if not text or "\0" in text:
        raise ValueError("a path")
    return os.path.normpath(os.path.join(os.getcwd(), text))


def absolute_path(text: str) -> str:
    """Return an absolute path, simplified; ".." is refused, as links may stand before it."""
    if not text.startswith("/") or "\0" in text or ".." in text.split("/"):
        raise ValueError("an absolute path without ..")
    return os.path.normpath("/" + text.strip("/"))


def one_of(*words: str) -> Callable[[str], str]:
    """Return a reader of one of these words."""

    def choose(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return choose


def number(text: str) -> int:
    """Return a whole number of at least 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError("a whole number")
    return int(text)


def volatile(text: str) -> str:
    """Return a `VolatileMode`; truth values stand for yes and no."""
    if text in ("state", "overlay"):
        return text
    try:
        return "yes" if boolean(text) else "no"
    except ValueError:
        raise ValueError(f"one of {', '.join(VOLATILE)}") from None


def root_hash(text: str) -> str:
    """Return a hash in hexadecimal of at least 128 bits."""
    if len(text) < 32 or len(text) % 2 or not _HEX.issuperset(text):
        raise ValueError("at least 32 hexadecimal digits")
    return text.lower()


def id128(text: str) -> str:
    """Return a UUID as 32 hexadecimal digits, given with hyphens or without."""
    plain = text.replace("-", "").lower()
    dashed = len(text) == 36 and all(text[at] == "-" for at in (8, 13, 18, 23))
    if len(plain) != 32 or not _HEX.issuperset(plain) or (plain != text.lower() and not dashed):
        raise ValueError("a UUID")
    if not plain.strip("0"):
        raise ValueError("a UUID that is not all zeroes")
    return plain


def hostname(text: str) -> str:
    """Return a valid hostname; hostname(7). "" takes the machine's name."""
    labels = text.split(".")
    if text and (len(text) > 64 or any(_bad_label(label) for label in labels)):
        raise ValueError("a hostname: labels of letters, digits and hyphens between dots")
    return text


def _bad_label(label: str) -> bool:
    return not label or not _LABEL.issuperset(label) or label[0] == "-" or label[-1] == "-"


def user(text: str) -> str:
    """Return the name or number of a user or group."""
    numeric = text.isascii() and text.isdigit()
    if not text or len(text) > 256 or not _USER.issuperset(text.removesuffix("$")):
        raise ValueError("the name or number of a user")
    if (numeric and int(text) >= _MOST_ID) or text[0] == "-":
        raise ValueError("the name or number of a user")
    return text


def signal(text: str) -> int:
    """Return the number of a signal: "TERM", "SIGTERM", "15", "SIGRTMIN+3"."""
    import _signal

    plain = text.upper().removeprefix("SIG")
    for name, base in (("RTMIN", int(_signal.SIGRTMIN)), ("RTMAX", int(_signal.SIGRTMAX))):
        rest = plain.removeprefix(name)
        if rest != plain:
            step = rest[1:] or "0"
            if rest and (rest[0] not in "+-" or not _is_number(rest[1:])):
                break
            found = base - int(step) if rest[:1] == "-" else base + int(step)
            return _in_range(found, int(_signal.SIGRTMAX))
    found = int(plain) if _is_number(plain) else int(getattr(_signal, f"SIG{plain}", 0))
    return _in_range(found, int(_signal.SIGRTMAX))


def _in_range(found: int, most: int) -> int:
    if not 0 < found <= most:
        raise ValueError("a signal, such as TERM, SIGRTMIN+3 or 15")
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 18


def personality(text: str) -> str:
    """Return an architecture that personality(2) may be asked for."""
    if text not in PERSONALITIES:
        raise ValueError("an architecture, such as x86 or x86-64")
    return text


def oom_score(text: str) -> int:
    """Return an adjustment of the OOM killer's score; proc_pid_oom_score_adj(5)."""
    digits = text.removeprefix("-")
    if not _is_number(digits) or not -1000 <= int(text) <= 1000:
        raise ValueError("a number from -1000 to 1000")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list of processors, such as "0-3,5 7"."""
    found: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not _is_number(first) or not _is_number(last) or not int(first) <= int(last) < 8192:
            raise ValueError("a list of numbers and ranges, such as 0-3,5")
        found.update(range(int(first), int(last) + 1))
    if not found:
        raise ValueError("a list of numbers and ranges, such as 0-3,5")
    return tuple(sorted(found))


def span(text: str) -> int:
    """Return a time span in nanoseconds: "90", "1h 30min", "2.5s"; systemd.time(7)."""
    expected = "a time span, such as 90, 2h or 1min 30s"
    total, rest = 0, text.strip()
    if not rest:
        raise ValueError(expected)
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        amount, rest = rest[:digits], rest[digits:].lstrip()
        letters = len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyzµ"))
        unit, rest = rest[:letters], rest[letters:].lstrip()
        whole, dot, fraction = amount.partition(".")
        if unit not in _SPANS or not _is_number(whole) or (dot and not _is_number(fraction)):
            raise ValueError(expected)
        total += int(whole) * _SPANS[unit]
        total += int(fraction or 0) * _SPANS[unit] // 10 ** len(fraction)
    if total > _MOST_NANOSECONDS:
        raise ValueError("a time span of less than a hundred years")
    return total


def from_span(value: int) -> str:
    """Return the text of a time span in nanoseconds."""
    return f"{value}ns"


def limit(text: str) -> int:
    """Return a resource limit: a number with K, M, G, T, P, E (base 1024), or infinity as -1."""
    if text == "infinity":
        return -1
    digits, shift = (text[:-1], _SIZES[text[-1]]) if text[-1:] in _SIZES else (text, 0)
    if not _is_number(digits) or int(digits) << shift >= 1 << 63:
        raise ValueError("a number or infinity")
    return int(digits) << shift


def size(text: str) -> int:
    """Return a size in bytes: a number with K, M, G, T, P, E (base 1024), as 512M or 1.5G."""
    digits, shift = (text[:-1], _SIZES[text[-1]]) if text[-1:] in _SIZES else (text, 0)
    whole, dot, fraction = digits.partition(".")
    if (
        not _is_number(whole)
        or (dot and not _is_number(fraction))
        or int(whole) << shift >= 1 << 63
    ):
        raise ValueError("a size in bytes, such as 512M")
    part: int = (int(fraction or 0) << shift) // 10 ** len(fraction)
    return (int(whole) << shift) + part


def from_limit(value: int) -> str:
    """Return the text of a resource limit."""
    return "infinity" if value < 0 else str(value)


def assignment(text: str) -> tuple[tuple[str, str], ...]:
    """Return NAME=VALUE as a pair, alone in a tuple."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("NAME=VALUE")
    return ((name, value),)


def environment(text: str) -> tuple[tuple[str, str], ...]:
    """Return the variables of a line of Environment=; a name alone has the value None."""
    return tuple(pair for word in split_words(text) for pair in variable(word))


def variable(text: str) -> tuple[tuple[str, str], ...]:
    """Return a variable of NAME=VALUE; a name alone has a value of its own kind."""
    name, equals, value = text.partition("=")
    if not name or any(letter not in _LABEL - {"-"} for letter in name) or name[0].isdigit():
        raise ValueError("NAME=VALUE, the name of letters, digits and _")
    return ((name, value if equals else _FROM_CALLER),)


_FROM_CALLER = "\0"  # no value can hold it


def from_caller(pairs: tuple[tuple[str, str], ...], ours: dict[str, str]) -> dict[str, str]:
    """Return variables, those that were given without a value as the caller has them."""
    return {name: ours.get(name, "") if value == _FROM_CALLER else value for name, value in pairs}


def slice_name(text: str) -> str:
    """Return the name of a slice; ".slice" may be left out, as in systemd-nspawn(1)."""
    if not text or "/" in text:
        raise ValueError("the name of a slice, such as web.slice")
    return text if text.endswith(".slice") else f"{text}.slice"


def register(text: str) -> str:
    """Return "yes", "no" or "auto"."""
    return text if text == "auto" else from_boolean(boolean(text))


def background(text: str) -> str:
    """Return a background colour as parameters of SGR, such as "44" or "48;2;0;0;64"."""
    if not _BACKGROUND.issuperset(text) or len(text) > 32:
        raise ValueError("numbers and semicolons of an SGR colour, such as 44, or nothing")
    return text


def shell(text: str) -> str:
    """Return the shell of bound users: "host", "" for the machine's default, or a path."""
    if text.startswith("/"):
        return absolute_path(text)
    try:
        return "host" if boolean(text) else ""
    except ValueError:
        raise ValueError("yes, no or an absolute path") from None
