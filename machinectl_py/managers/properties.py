"""Values of resource properties, as systemctl set-property takes them; systemd.resource-control(5).

Each function turns text into a number, or raises `ValueError` that says what it expects. Both
the systemd and the embedded manager read values here, so that they mean the same with either.
"""

from __future__ import annotations

import os

INFINITY = (1 << 64) - 1
_SIZES = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
# systemd.time(7), in microseconds.
_TIMES = {
    "": 1_000_000,
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "sec": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "hr": 3_600_000_000,
    "d": 86_400_000_000,
}


def parse_bytes(text: str) -> int:
    """Return a number of bytes: "512M" (base 1024), "50%" of the memory, "infinity"."""
    if text == "infinity":
        return INFINITY
    if text.endswith("%"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(memory * _percentage(text, 100) / 100)
    number, shift = (text[:-1], _SIZES[text[-1]]) if text[-1:] in _SIZES else (text, 0)
    try:
        value = int(float(number) * (1 << shift)) if "." in number else int(number) << shift
    except ValueError:
        value = -1
    if not 0 <= value < INFINITY:
        raise ValueError("a number of bytes, such as 512M, 50% or infinity")
    return value


def parse_tasks(text: str) -> int:
    """Return a number of tasks: "4096", "10%" of what the system can have, "infinity"."""
    if text == "infinity":
        return INFINITY
    if text.endswith("%"):
        return max(1, int(_tasks_of_system() * _percentage(text, 100) / 100))
    if not _is_number(text) or not 1 <= int(text) < INFINITY:
        raise ValueError("a number of tasks, such as 4096, 10% or infinity")
    return int(text)


def _tasks_of_system() -> int:
    limits = []
    for name in ("pid_max", "threads-max"):
        with open(f"/proc/sys/kernel/{name}", encoding="utf-8") as file:
            limits.append(int(file.read()))
    return min(limits)


def parse_weight(text: str) -> int:
    """Return a weight from 1 to 10000; 100 is that of everyone else."""
    if not _is_number(text) or not 1 <= int(text) <= 10000:
        raise ValueError("a weight from 1 to 10000")
    return int(text)


def parse_quota(text: str) -> int:
    """Return processor time as microseconds per second: "150%" are one processor and a half."""
    if text in ("", "infinity"):
        return INFINITY
    value = int(_percentage(text, 1 << 32) * 10_000)
    if value <= 0:
        raise ValueError("a share of processor time above 0%")
    return value


def parse_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list of processors or memory nodes, such as "0-3,5 7"."""
    numbers: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not _is_number(first) or not _is_number(last) or not int(first) <= int(last) < 1 << 16:
            raise ValueError("a list of numbers and ranges, such as 0-3,5")
        numbers.update(range(int(first), int(last) + 1))
    return tuple(sorted(numbers))


def parse_time(text: str) -> int:
    """Return a time span in microseconds: "90", "1min 30s", "infinity"; systemd.time(7)."""
    if text == "infinity":
        return INFINITY
    import re

    parts = re.findall(r"([0-9]+)\s*([a-z]*)\s*", text)
    rest = re.sub(r"[0-9]+\s*[a-z]*\s*", "", text)
    if not parts or rest or any(unit not in _TIMES for _, unit in parts):
        raise ValueError("a time span, such as 90s, 1min 30s or infinity")
    return sum(int(number) * _TIMES[unit] for number, unit in parts)


def parse_boolean(text: str) -> bool:
    """Return a truth value as systemd's files have it."""
    if text.lower() in ("1", "yes", "y", "true", "t", "on"):
        return True
    if text.lower() in ("0", "no", "n", "false", "f", "off"):
        return False
    raise ValueError("yes or no")


def parse_percentage(text: str) -> float:
    """Return a percentage, from 0 to 100."""
    return _percentage(text, 100)


def _percentage(text: str, highest: int) -> float:
    number = text[:-1]
    if not text.endswith("%") or not _is_number(number.replace(".", "", 1)):
        raise ValueError("a percentage, such as 50%")
    if float(number) > highest:
        raise ValueError(f"a percentage of at most {highest}%")
    return float(number)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
