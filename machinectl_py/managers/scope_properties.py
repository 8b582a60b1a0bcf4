"""Properties of a scope as D-Bus has them; org.freedesktop.systemd1(5).

What systemctl set-property does: names and values of unit files become typed properties.
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.managers import properties as read
from machinectl_py.managers import property_values as values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from machinectl_py.managers.bus import Property


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
                f"The systemd cgroup manager cannot set the property '{name}'", _hint(name, table)
            )
        dbus_name, signature, convert = table[name]
        try:
            result.append((dbus_name or name, signature, convert(text)))
        except ValueError as error:
            raise ConfigError(f"{name}={text} is not valid: expected {error}") from error
    return result


def _hint(name: str, known: Iterable[str]) -> str:
    if name in _OPTIONS:
        return f"{_OPTIONS[name]} does that."
    import difflib

    closest = difflib.get_close_matches(name, known, n=1)
    if closest:
        return f"Did you mean '{closest[0]}'?"
    return "Scopes have those of systemd.resource-control(5), systemd.kill(5), systemd.unit(5)."


# What is ours to set.
_OPTIONS = {"Slice": "--slice=", "KillSignal": "--kill-signal="}


def _table() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return, by the name in unit files: D-Bus's name ("": the same), its signature, the reader."""
    return {**_resources(), **_devices_and_network(), **_pressure(), **_kill(), **_unit()}


def _resources() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return those of systemd.resource-control(5) about processors, memory, tasks and disks."""
    truth = ("", "b", read.parse_boolean)
    least, most = ("", "t", values.least_memory), ("", "t", values.most_memory)
    mask = ("", "ay", values.bit_mask)
    weight = ("", "t", read.parse_weight)
    share = ("", "t", values.share)
    rate = ("", "a(st)", values.device_number)
    return {
        "TasksMax": ("", "t", read.parse_tasks),
        **dict.fromkeys(("MemoryMin", "MemoryLow", "DefaultMemoryMin", "DefaultMemoryLow"), least),
        **dict.fromkeys(("StartupMemoryLow", "DefaultStartupMemoryLow"), least),
        **dict.fromkeys(("MemoryHigh", "MemoryMax", "MemorySwapMax", "MemoryZSwapMax"), most),
        **dict.fromkeys(("StartupMemoryHigh", "StartupMemoryMax"), most),
        **dict.fromkeys(("StartupMemorySwapMax", "StartupMemoryZSwapMax"), most),
        "MemoryZSwapWriteback": truth,
        **dict.fromkeys(("CPUWeight", "StartupCPUWeight"), share),
        "CPUQuota": ("CPUQuotaPerSecUSec", "t", read.parse_quota),
        "CPUQuotaPeriodSec": ("CPUQuotaPeriodUSec", "t", read.parse_time),
        **dict.fromkeys(("AllowedCPUs", "StartupAllowedCPUs"), mask),
        **dict.fromkeys(("AllowedMemoryNodes", "StartupAllowedMemoryNodes"), mask),
        **dict.fromkeys(("IOWeight", "StartupIOWeight"), weight),
        "IODeviceWeight": ("", "a(st)", values.device_weight),
        "IODeviceLatencyTargetSec": ("IODeviceLatencyTargetUSec", "a(st)", values.device_time),
        **dict.fromkeys(("IOReadBandwidthMax", "IOWriteBandwidthMax"), rate),
        **dict.fromkeys(("IOReadIOPSMax", "IOWriteIOPSMax"), rate),
        **dict.fromkeys(("CPUAccounting", "MemoryAccounting", "TasksAccounting"), truth),
        **dict.fromkeys(("IOAccounting", "IPAccounting"), truth),
        "DisableControllers": ("", "as", str.split),
    }


def _devices_and_network() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return those of systemd.resource-control(5) that systemd holds by BPF and netfilter."""
    addresses = ("", "a(iayu)", values.addresses)
    ports = ("", "a(iiqq)", values.socket_bind)
    path = ("", "as", values.paths)
    return {
        "DevicePolicy": ("", "s", _one_of("auto", "closed", "strict")),
        "DeviceAllow": ("", "a(ss)", values.device_rule),
        **dict.fromkeys(("IPAddressAllow", "IPAddressDeny"), addresses),
        **dict.fromkeys(("IPIngressFilterPath", "IPEgressFilterPath"), path),
        "BPFProgram": ("", "a(ss)", values.bpf_program),
        **dict.fromkeys(("SocketBindAllow", "SocketBindDeny"), ports),
        "RestrictNetworkInterfaces": ("", "(bas)", values.interfaces),
        "NFTSet": ("", "a(iiss)", values.nft_sets),
    }


def _pressure() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return those of systemd.resource-control(5) for when memory runs short."""
    usec = ("ManagedOOMMemoryPressureDurationUSec", "t", read.parse_time)
    return {
        **dict.fromkeys(
            ("ManagedOOMSwap", "ManagedOOMMemoryPressure"), ("", "s", _one_of("auto", "kill"))
        ),
        "ManagedOOMMemoryPressureLimit": ("", "u", values.scaled_percentage),
        "ManagedOOMMemoryPressureDurationSec": usec,
        "ManagedOOMPreference": ("", "s", _one_of("none", "avoid", "omit")),
        "MemoryPressureWatch": ("", "s", _one_of("auto", "on", "off", "skip")),
        "MemoryPressureThresholdSec": ("MemoryPressureThresholdUSec", "t", read.parse_time),
        "CoredumpReceive": ("", "b", read.parse_boolean),
    }


def _kill() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return those of systemd.kill(5) and systemd.scope(5).

    Not KillSignal=, which tells the supervisor that the machine is to be stopped in order.
    """
    truth, signal = ("", "b", read.parse_boolean), ("", "i", values.signal_number)
    return {
        "KillMode": ("", "s", _one_of("control-group", "mixed", "process", "none")),
        **dict.fromkeys(("SendSIGKILL", "SendSIGHUP"), truth),
        **dict.fromkeys(("FinalKillSignal", "RestartKillSignal", "WatchdogSignal"), signal),
        "TimeoutStopSec": ("TimeoutStopUSec", "t", read.parse_time),
        "RuntimeMaxSec": ("RuntimeMaxUSec", "t", read.parse_time),
        "RuntimeRandomizedExtraSec": ("RuntimeRandomizedExtraUSec", "t", read.parse_time),
        "OOMPolicy": ("", "s", _one_of("continue", "stop", "kill")),
    }


def _unit() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    """Return those of systemd.unit(5) that a scope can use: it is started by hand, at once."""
    truth, text, words = ("", "b", read.parse_boolean), ("", "s", str), ("", "as", str.split)
    return {
        **dict.fromkeys(("Description", "SourcePath"), text),
        "Documentation": words,
        **dict.fromkeys(("After", "Before", "Requires", "Requisite", "Wants"), words),
        **dict.fromkeys(("BindsTo", "PartOf", "Upholds", "Conflicts", "RequiresMountsFor"), words),
        **dict.fromkeys(
            ("OnFailure", "OnSuccess", "PropagatesStopTo", "StopPropagatedFrom"), words
        ),
        **dict.fromkeys(("StopWhenUnneeded", "IgnoreOnIsolate", "DefaultDependencies"), truth),
        "SurviveFinalKillSignal": truth,
        "JobRunningTimeoutSec": ("JobRunningTimeoutUSec", "t", read.parse_time),
        "CollectMode": ("", "s", _one_of("inactive", "inactive-or-failed")),
    }


def _one_of(*words: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return choose
