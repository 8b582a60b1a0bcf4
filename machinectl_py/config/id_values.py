"""Values of user namespaces, capabilities, filters and credentials from text, and back."""

from __future__ import annotations

from machinectl_py.config.credentials import decode, encode, is_valid_name
from machinectl_py.config.spec import CredentialSpec, Rlimit
from machinectl_py.config.values import boolean, from_limit, limit, span
from machinectl_py.config.words import split_fields

DEFAULT_COUNT = 0x10000
_MOST_ID = 0xFFFFFFFF
# Limits of time: what a number without a unit is in, and the kernel's unit in nanoseconds.
_UNITS = {"CPU": ("s", 1_000_000_000), "RTTIME": ("us", 1_000)}
LIMITS = (
    *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NOFILE", "AS", "NPROC", "MEMLOCK"),
    *("LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
)


def private_users(text: str) -> tuple[str, int, int]:
    """Return mode, first id and count of a `UsersSpec`; systemd-nspawn(1), --private-users=."""
    if text in ("pick", "managed"):
        return text, 0, DEFAULT_COUNT
    if text == "identity":
        return "fixed", 0, DEFAULT_COUNT
    first, colon, count = text.partition(":")
    if not first.isascii() or not first.isdigit():  # numbers are no truth values here
        try:
            return ("root" if boolean(text) else "no"), 0, DEFAULT_COUNT
        except ValueError:
            raise ValueError("no, yes, pick, identity, managed or UID[:COUNT]") from None
    if colon and (not count.isascii() or not count.isdigit() or len(count) > 10):
        raise ValueError("UID:COUNT, such as 524288:65536")
    size = int(count) if colon else DEFAULT_COUNT
    if len(first) > 10 or size < 1 or int(first) + size > _MOST_ID:
        raise ValueError(f"a range of ids below {_MOST_ID} that is not empty")
    return "fixed", int(first), size


def from_private_users(value: tuple[str, int, int]) -> str:
    """Return the text of mode, first id and count."""
    mode, first, count = value
    if mode == "fixed":
        return f"{first}:{count}"
    return {"root": "yes"}.get(mode, mode)


def pick(text: str) -> tuple[str, int, int]:
    """Return what -U stands for."""
    return ("pick" if boolean(text) else "no"), 0, DEFAULT_COUNT


def chown(text: str) -> str:
    """Return what PrivateUsersChown= stands for."""
    return "chown" if boolean(text) else "off"


def rlimit(text: str) -> tuple[Rlimit, ...]:
    """Return a limit of NAME=SOFT[:HARD]; the name as in LimitNOFILE= or RLIMIT_NOFILE."""
    name, equals, value = text.partition("=")
    name = name.upper().removeprefix("RLIMIT_").removeprefix("LIMIT")
    if not equals or name not in LIMITS:
        raise ValueError("NAME=SOFT[:HARD], such as NOFILE=1024")
    return limit_of(name, value)


def _limit(name: str, text: str) -> int:
    """Return a limit in the kernel's unit; times and nice levels are read as such."""
    if name in _UNITS and text != "infinity":
        default, nanoseconds = _UNITS[name]
        return -(-span(text if text.strip("0123456789") else text + default) // nanoseconds)
    if name == "NICE" and text[:1] in ("+", "-"):
        level = limit(text[1:])
        if not 0 <= level <= (19 if text[0] == "+" else 20):
            raise ValueError("a nice level from -20 to +19")
        return 20 - level if text[0] == "+" else 20 + level  # getrlimit(2), RLIMIT_NICE
    return limit(text)


def limit_of(name: str, text: str) -> tuple[Rlimit, ...]:
    """Return the limit `name` of SOFT[:HARD]."""
    soft, colon, hard = text.partition(":")
    found = Rlimit(name=name, soft=_limit(name, soft), hard=_limit(name, hard if colon else soft))
    if found.soft != found.hard and found.hard >= 0 and not 0 <= found.soft <= found.hard:
        raise ValueError("a soft limit not above the hard one")
    return (found,)


def from_rlimit(value: Rlimit) -> str:
    """Return the text of SOFT:HARD."""
    return f"{from_limit(value.soft)}:{from_limit(value.hard)}"


def names(text: str) -> tuple[str, ...]:
    """Return words between commas or blanks, in capitals and with "CAP_", "all" as it is."""
    found = []
    for word in text.replace(",", " ").split():
        upper = word.upper()
        found.append(
            "all" if upper == "ALL" else upper if upper.startswith("CAP_") else f"CAP_{upper}"
        )
    return tuple(found)


def filter_words(text: str) -> tuple[str, ...]:
    """Return names of system calls and @groups; each with "~" before it if the first has it."""
    sign = "~" if text.startswith("~") else ""
    found = text.removeprefix("~").split()
    if any(not word.replace("@", "").replace("-", "").replace("_", "").replace(":", "").isalnum()
           for word in found):  # fmt: skip
        raise ValueError("names of system calls and @groups, with ~ before the first to deny them")
    return tuple(sign + word for word in found)


def families(text: str) -> tuple[str, ...]:
    """Return names of address families; each with "~" before it if the first has it; or none."""
    if text == "none":
        return ("none",)
    sign = "~" if text.startswith("~") else ""
    found = text.removeprefix("~").split()
    if any(not word.startswith("AF_") or not word[3:].replace("_", "").isalnum() for word in found):
        raise ValueError("address families, such as AF_UNIX AF_INET, or none")
    return tuple(sign + word for word in found)


def credential(text: str) -> tuple[CredentialSpec, ...]:
    r"""Return a credential of NAME:VALUE, C escapes of the value undone; systemd-nspawn(1)."""
    name, colon, value = text.partition(":")
    if not colon or not is_valid_name(name):
        raise ValueError("NAME:VALUE, the name valid as that of a file")
    return (encode(name, unescape(value)),)


def credential_file(text: str) -> tuple[tuple[str, str], ...]:
    """Return name and path of NAME:PATH; an absolute path, or a name of our own credentials."""
    fields = split_fields(text, 2)
    if len(fields) != 2 or not fields[1] or not is_valid_name(fields[0]):
        raise ValueError("NAME:PATH, the name valid as that of a file")
    return ((fields[0], fields[1]),)


def from_credential(value: CredentialSpec) -> str:
    """Return NAME:VALUE, every byte that is not plain escaped."""
    data = decode(value)
    return f"{value.name}:" + "".join(
        chr(byte) if 32 < byte < 127 and byte != 0x5C else f"\\x{byte:02x}" for byte in data
    )


_ESCAPES = dict(zip("abfnrtvs\\\"'", b"\a\b\f\n\r\t\v \\\"'", strict=True))


def unescape(text: str) -> bytes:
    r"""Return a text with C escapes undone: \n, \x41, \101, \u20ac, \U0001f600, \s (a blank).

    Raises:
        ValueError: an escape is not valid.
    """
    found, at = bytearray(), 0
    while at < len(text):
        if text[at] != "\\":
            found += text[at].encode(errors="surrogateescape")
            at += 1
            continue
        letter, at = text[at + 1 : at + 2], at + 2
        if letter in _ESCAPES:
            found.append(_ESCAPES[letter])
            continue
        digits, base = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}.get(letter, (3, 8))
        at -= base == 8
        code = text[at : at + digits]
        at += digits
        found += _code_point(code, digits, base, as_byte=digits < 4)
    return bytes(found)


def _code_point(code: str, digits: int, base: int, *, as_byte: bool) -> bytes:
    allowed = "01234567" if base == 8 else "0123456789abcdefABCDEF"
    if len(code) != digits or any(letter not in allowed for letter in code):
        raise ValueError("valid escapes after backslashes")
    value = int(code, base)
    if as_byte and value < 256:
        return bytes((value,))
    try:
        return chr(value).encode()
    except (ValueError, OverflowError):
        raise ValueError("valid escapes after backslashes") from None
