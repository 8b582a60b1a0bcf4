"""Properties of a scope as D-Bus has them; org.freedesktop.systemd1(5).

What systemctl set-property does: names and values of unit files become typed properties.
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.managers import properties as read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machinectl_py.managers.bus import Property

_NAMED_ADDRESSES = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}


def to_dbus(pairs: tuple[tuple[str, str], ...]) -> list[Property]:
    """Return properties, given as unit files have them, as (name, signature, value) of D-Bus.

    Raises:
        UnsupportedError: a property that scopes do not have or that is not known here.
        ConfigError: a value is not valid.
    """
    table = _table() if pairs else {}
    result: list[Property] = []
    for name, text in pairs:
        if name not in table:
            raise UnsupportedError(
                f"The systemd cgroup manager cannot set the property '{name}'",
                f"It knows {', '.join(table)}.",
            )
        dbus_name, signature, convert = table[name]
        try:
            result.append((dbus_name or name, signature, convert(text)))
        except ValueError as error:
            raise ConfigError(f"{name}={text} is not valid: expected {error}") from error
    return result


def _table() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return, by the name in unit files: D-Bus's name ("": the same), its signature, the reader."""
    size = ("", "t", read.parse_bytes)
    truth = ("", "b", read.parse_boolean)
    text = ("", "s", str)
    words = ("", "as", str.split)
    mask = ("", "ay", _bit_mask)
    bandwidth = ("", "a(st)", _device_number)
    return {
        "Description": text,
        "TasksMax": ("", "t", read.parse_tasks),
        **dict.fromkeys(("MemoryMin", "MemoryLow", "MemoryHigh", "MemoryMax"), size),
        **dict.fromkeys(("MemorySwapMax", "MemoryZSwapMax"), size),
        "CPUWeight": ("", "t", lambda value: 0 if value == "idle" else read.parse_weight(value)),
        "CPUQuota": ("CPUQuotaPerSecUSec", "t", read.parse_quota),
        "AllowedCPUs": mask,
        "AllowedMemoryNodes": mask,
        "IOWeight": ("", "t", read.parse_weight),
        "IODeviceWeight": bandwidth,
        **dict.fromkeys(("IOReadBandwidthMax", "IOWriteBandwidthMax"), bandwidth),
        **dict.fromkeys(("IOReadIOPSMax", "IOWriteIOPSMax"), bandwidth),
        **dict.fromkeys(("CPUAccounting", "MemoryAccounting", "TasksAccounting"), truth),
        **dict.fromkeys(("IOAccounting", "IPAccounting"), truth),
        "IPAddressAllow": ("", "a(iayu)", _addresses),
        "IPAddressDeny": ("", "a(iayu)", _addresses),
        "DevicePolicy": ("", "s", _one_of("auto", "closed", "strict")),
        "DeviceAllow": ("", "a(ss)", _device_rule),
        "ManagedOOMSwap": ("", "s", _one_of("auto", "kill")),
        "ManagedOOMMemoryPressure": ("", "s", _one_of("auto", "kill")),
        "KillMode": ("", "s", _one_of("control-group", "mixed", "process", "none")),
        "SendSIGKILL": truth,
        "TimeoutStopSec": ("TimeoutStopUSec", "t", read.parse_time),
        "RuntimeMaxSec": ("RuntimeMaxUSec", "t", read.parse_time),
        **dict.fromkeys(("After", "Before", "Requires", "Requisite", "Wants"), words),
        **dict.fromkeys(("BindsTo", "PartOf", "Conflicts"), words),
    }


def _one_of(*words: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return choose


def _bit_mask(text: str) -> list[int]:
    """Return numbers as a bit mask, least significant byte first."""
    mask = sum(1 << number for number in read.parse_numbers(text))
    return list(mask.to_bytes((mask.bit_length() + 7) // 8, "little"))


def _device_rule(text: str) -> list[tuple[str, str]]:
    """Return a rule as "/dev/fuse rwm" or "char-pts rw" has it; no access given means all."""
    words = text.split()
    if not words:
        return []  # an empty list clears what was set
    access = words[1] if len(words) == 2 else "rwm"
    if len(words) > 2 or set(access) - set("rwm"):
        raise ValueError("a device and its access, such as /dev/fuse rwm")
    return [(words[0], access)]


def _device_number(text: str) -> list[tuple[str, int]]:
    """Return a device with a number: "/dev/vda 10M", base 1000; "infinity" lifts the limit."""
    path, _, number = text.partition(" ")
    units = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    factor = units.get(number[-1:], 1)
    digits = number[:-1] if factor > 1 else number
    if not path.startswith("/") or not (digits.isdecimal() or number == "infinity"):
        raise ValueError("a device and a number, such as /dev/vda 10M")
    return [(path, read.INFINITY if number == "infinity" else int(digits) * factor)]


def _addresses(text: str) -> list[tuple[int, list[int], int]]:
    """Return addresses with prefixes as (family, bytes, bits of prefix)."""
    import _socket

    result = []
    for word in text.split():
        for address in _NAMED_ADDRESSES.get(word, (word,)):
            host, slash, prefix = address.partition("/")
            family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
            try:
                packed = list(_socket.inet_pton(family, host))
                bits = int(prefix) if slash else len(packed) * 8
            except (OSError, ValueError):
                bits, packed = -1, []
            if not 0 <= bits <= len(packed) * 8 or not packed:
                raise ValueError("addresses, such as 10.0.0.0/8, any, localhost")
            result.append((int(family), packed, bits))
    return result
