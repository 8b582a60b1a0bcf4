"""What settings of a closed set may be, for the value "help" that systemd-nspawn(1) has."""

from __future__ import annotations

from machinectl_py.config import values
from machinectl_py.config.id_values import LIMITS

_SETS = {
    "volatile": values.VOLATILE,
    "ownership": values.OWNERSHIP,
    "resolv-conf": values.RESOLV_CONF,
    "timezone": values.TIMEZONE,
    "link-journal": values.LINK_JOURNAL,
    "console": values.CONSOLE,
    "personality": values.PERSONALITIES,
    "rlimit": LIMITS,
}


def possible_values(kind: str, capability_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of a kind of setting; () if they are not of a closed set.

    Args:
        kind: a name in `config/kinds.py`.
        capability_names: those of this kernel.
    """
    if kind == "capabilities":
        return tuple(name.lower() for name in capability_names)
    if kind == "signal":
        return _signals()
    return _SETS.get(kind, ())


def _signals() -> tuple[str, ...]:
    import _signal

    first, last = int(_signal.SIGRTMIN), int(_signal.SIGRTMAX)
    plain = {
        int(number): name
        for name, number in vars(_signal).items()
        if name.startswith("SIG") and name[3:].isalnum() and 0 < int(number) < first
    }
    real_time = ("RTMIN", *(f"RTMIN+{step}" for step in range(1, last - first + 1)))
    return (*(name for _, name in sorted(plain.items())), *(f"SIG{name}" for name in real_time))
