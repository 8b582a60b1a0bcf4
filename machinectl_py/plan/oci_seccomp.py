"""Profiles of system calls as Docker, Podman and the OCI have them: JSON ─▶ rules.

https://github.com/opencontainers/runtime-spec, config-linux, "Seccomp"; the keys archMap, name,
includes and excludes are Docker's. What they mean is as in runc and Docker: a call that
libseccomp does not know is passed over; several conditions on one argument are alternatives.
"""

from __future__ import annotations

import errno

from machinectl_py.codec import decode
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel.capabilities import mask_names
from machinectl_py.kernel.seccomp import Action, Condition, Rule
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = {
    "KILL": "KILL",
    "KILL_THREAD": "KILL",
    "KILL_PROCESS": "KILL_PROCESS",
    "TRAP": "TRAP",
    "ERRNO": "ERRNO",
    "TRACE": "TRACE",
    "ALLOW": "ALLOW",
    "LOG": "LOG",
}
_OPERATORS = ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")
# What Docker calls an architecture, and libseccomp's name of it, by uname(2)'s.
_ARCHITECTURES = {
    "x86_64": ("amd64", "X86_64"),
    "i686": ("x86", "X86"),
    "aarch64": ("arm64", "AARCH64"),
    "arm": ("arm", "ARM"),
    "ppc64": ("ppc64", "PPC64"),
    "ppc64le": ("ppc64le", "PPC64LE"),
    "s390x": ("s390x", "S390X"),
    "riscv64": ("riscv64", "RISCV64"),
    "loongarch64": ("loong64", "LOONGARCH64"),
}
_ARCHITECTURE_NAMES = (
    "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64"
    " MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 RISCV64 SH SHEB"
)
_KEYS = {
    "": (
        "defaultAction defaultErrnoRet architectures archMap syscalls flags listenerPath"
        " listenerMetadata comment"
    ),
    "syscalls": "names name action errnoRet args includes excludes comment",
    "args": "index value valueTwo op",
    "archMap": "architecture subArchitectures",
    "includes": "caps arches minKernel",
    "excludes": "caps arches minKernel",
}
_ARGUMENTS = 6  # of a system call at most
_LARGEST = {"ERRNO": 4095, "TRACE": 0xFFFF}


class ProfileHost(Record):
    """What the conditions of a profile are about."""

    machine: str  # as uname(2) has it
    release: str  # of the kernel
    capabilities: int  # the machine's bounding set


class Profile(Record):
    """A profile as it is on one host."""

    default: Action
    architectures: tuple[str, ...]  # libseccomp's names, beside the native one
    rules: tuple[Rule, ...]

    def allows(self, call: str) -> bool:
        """Say whether a call is allowed whatever its arguments."""
        about = [rule for rule in self.rules if call in rule.calls]
        return all(rule.action.kind == "ALLOW" for rule in about) and (
            self.default.kind == "ALLOW" or any(not rule.conditions for rule in about)
        )


def parse_profile(text: str, host: ProfileHost) -> Profile:
    """Return the profile in a JSON text, as far as it is about this host.

    Raises:
        ConfigError: it is not valid; says where.
        UnsupportedError: it asks for what is not done here: a listener, or flags.
    """
    try:
        data = decode(text)
    except ValueError as error:
        raise ConfigError(f"The seccomp profile is no JSON: {error}") from error
    _check_keys(data, "", "")
    _refuse_listener(data)
    rules: list[Rule] = []
    for index, item in enumerate(_list(data, "syscalls", "")):
        where = f"syscalls[{index}]"
        _check_keys(item, "syscalls", where)
        if _is_meant(item, host, where):
            rules += _rules(item, where)
        else:
            _rules(item, where)  # for its errors
    return Profile(
        default=_action(data, "defaultAction", "defaultErrnoRet", ""),
        architectures=_architectures(data, host),
        rules=tuple(rules),
    )


def _bad(where: str, what: str) -> ConfigError:
    return ConfigError(f"The seccomp profile is not valid: {where or 'it'} {what}")


def _under(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _check_keys(data: Any, kind: str, where: str) -> None:
    if not isinstance(data, dict):
        raise _bad(where, "is no object")
    for key in data:
        if key not in _KEYS[kind].split():
            raise _bad(_under(where, key), "is not known")


def _list(data: dict[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad(_under(where, key), "is no array")
    return value


def _texts(data: dict[str, Any], key: str, where: str) -> list[str]:
    values = _list(data, key, where)
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise _bad(f"{_under(where, key)}[{index}]", "is no name")
    return values


def _number(data: dict[str, Any], key: str, where: str, largest: int) -> int:
    value = data.get(key)
    if value is None:
        value = 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise _bad(_under(where, key), f"is no number from 0 to {largest}")
    return value


def _refuse_listener(data: dict[str, Any]) -> None:
    if data.get("listenerPath") or data.get("listenerMetadata"):
        raise UnsupportedError("A seccomp profile with a listener is not supported")
    for flag in _texts(data, "flags", ""):
        # A machine's first process has one thread, so it needs no synchronisation.
        if flag != "SECCOMP_FILTER_FLAG_TSYNC":
            raise UnsupportedError(f"The flag '{flag}' of a seccomp profile is not supported")


def _action(data: dict[str, Any], key: str, number: str, where: str) -> Action:
    text = data.get(key)
    if text == "SCMP_ACT_NOTIFY":
        raise UnsupportedError("The action SCMP_ACT_NOTIFY of a seccomp profile is not supported")
    known = isinstance(text, str) and text.startswith("SCMP_ACT_")
    kind = _KINDS.get(str(text).removeprefix("SCMP_ACT_")) if known else None
    if kind is None:
        raise _bad(_under(where, key), f"is no action: {text!r}")
    if kind not in _LARGEST:
        return Action(kind=kind)
    if data.get(number) is None:
        return Action(kind=kind, number=errno.EPERM)
    return Action(kind=kind, number=_number(data, number, where, _LARGEST[kind]))


def _rules(item: dict[str, Any], where: str) -> tuple[Rule, ...]:
    names = _texts(item, "names", where)
    name = item.get("name")
    if name and names:
        raise _bad(where, "has both name and names")
    calls = tuple(names or ([name] if isinstance(name, str) else []))
    if not calls:
        raise _bad(where, "names no system call")
    action = _action(item, "action", "errnoRet", where)
    conditions = tuple(
        _condition(argument, f"{where}.args[{index}]")
        for index, argument in enumerate(_list(item, "args", where))
    )
    if len({condition.argument for condition in conditions}) == len(conditions):
        return (Rule(action=action, calls=calls, conditions=conditions),)
    return tuple(Rule(action=action, calls=calls, conditions=(one,)) for one in conditions)


def _condition(data: Any, where: str) -> Condition:
    _check_keys(data, "args", where)
    text = data.get("op")
    operator = text.removeprefix("SCMP_CMP_") if isinstance(text, str) else ""
    if operator not in _OPERATORS or text == operator:
        raise _bad(f"{where}.op", f"is no comparison: {text!r}")
    largest = (1 << 64) - 1
    return Condition(
        argument=_number(data, "index", where, _ARGUMENTS - 1),
        operator=operator,
        value=_number(data, "value", where, largest),
        masked=_number(data, "valueTwo", where, largest),
    )


def _is_meant(item: dict[str, Any], host: ProfileHost, where: str) -> bool:
    """Say whether an item's includes and excludes let it be one of this host and machine."""
    meant = True
    for key in ("includes", "excludes"):
        filters = item.get(key)
        if filters is None:
            continue
        _check_keys(filters, key, f"{where}.{key}")
        met = _met(filters, host, f"{where}.{key}")
        meant &= all(met) if key == "includes" else not any(met)
    return meant


def _met(filters: dict[str, Any], host: ProfileHost, where: str) -> list[bool]:
    """Return which conditions of a filter hold; capabilities count one by one."""
    own, _ = _ARCHITECTURES.get(host.machine, (host.machine, ""))
    held = mask_names(host.capabilities)
    met = [capability in held for capability in _texts(filters, "caps", where)]
    arches = _texts(filters, "arches", where)
    if arches:
        met.append(own in arches)
    least = filters.get("minKernel")
    if least:
        wanted = _version(least) if isinstance(least, str) else None
        if wanted is None:
            raise _bad(f"{where}.minKernel", f"is no version: {least!r}")
        met.append((_version(host.release) or (0, 0)) >= wanted)
    return met


def _version(text: str) -> tuple[int, int] | None:
    """Return the first two numbers of a kernel's release."""
    parts = text.replace("-", ".").split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        return None
    return int(parts[0]), int(parts[1])


def _architectures(data: dict[str, Any], host: ProfileHost) -> tuple[str, ...]:
    """Return the architectures that the profile is about, by libseccomp's names."""
    plain, mapped = _texts(data, "architectures", ""), _list(data, "archMap", "")
    if plain and mapped:
        raise _bad("", "has both architectures and archMap")
    found = [_architecture(name, "architectures") for name in plain]
    _, own = _ARCHITECTURES.get(host.machine, ("", ""))
    for index, item in enumerate(mapped):
        where = f"archMap[{index}]"
        _check_keys(item, "archMap", where)
        names = [item.get("architecture"), *_texts(item, "subArchitectures", where)]
        known = [_architecture(name, where) for name in names]
        if known[0] == own:
            found += known
    return tuple(dict.fromkeys(found))


def _architecture(name: Any, where: str) -> str:
    plain = name.removeprefix("SCMP_ARCH_") if isinstance(name, str) else ""
    if plain == name or plain not in _ARCHITECTURE_NAMES.split():
        raise _bad(where, f"has no such architecture: {name!r}")
    return plain
