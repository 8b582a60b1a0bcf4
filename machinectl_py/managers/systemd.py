"""The systemd cgroup manager: a transient scope per machine; org.freedesktop.systemd1(5)."""

from __future__ import annotations

import os
import time

from machinectl_py.errors import ConfigError, ConflictError, PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.kernel.const import SIGKILL, SIGURG
from machinectl_py.managers.bus import Bus, BusError, systemd_bus
from machinectl_py.plan.ports import CgroupPlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.managers.bus import Property
    from machinectl_py.plan.ports import CgroupRequest

_STOP_TIMEOUT = 90_000_000  # microseconds: systemd's default of TimeoutStopSec=
_JOB_TIMEOUT = 30.0  # seconds for the start of a scope: it starts no process
_STALE_TIMEOUT = 15.0  # seconds for a scope of an earlier run to go
_KILL_TIMEOUT = 10.0  # seconds for killed processes to die
_POLL = 0.005  # seconds
_DEFAULT_TASKS_MAX = 16384  # as systemd-nspawn@.service has it
# Beside what "closed" allows (null, zero, full, random, urandom, tty, ptmx); as systemd-nspawn.
_DEVICES = [("/dev/net/tun", "rwm"), ("char-pts", "rw")]
_VALID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-\\")


class SystemdManager:
    """Has systemd start a scope around the supervisor, delegated to us."""

    name = "systemd"

    def locate(self, request: CgroupRequest) -> CgroupPlace:
        """Return the scope that `start` would make; only systemd knows its cgroup."""
        return CgroupPlace(unit=unit_name(request.name), cgroup="")

    def start(self, request: CgroupRequest) -> CgroupPlace:
        """Start the scope with `request.pids` in it and wait for the job.

        Raises:
            ConfigError: the slice's name or a property's value is not valid.
            ConflictError: processes of an earlier run live in a scope of that name.
            UnsupportedError: a property that cannot be set, or a host without cgroup2.
            PymachineError: systemd refused; the line has its own text.
        """
        unit = unit_name(request.name)
        properties = _properties(request)
        root = _find_root()
        deadline = time.monotonic() + _STALE_TIMEOUT
        while True:
            try:
                with systemd_bus() as bus:
                    return self._start_once(bus, request, properties, root)
            except BusError as error:
                if not (error.lost or error.name == "UnitExists") or time.monotonic() > deadline:
                    raise PymachineError(
                        f"Failed to start {unit}: {error.message}", error.hint
                    ) from error
            time.sleep(_POLL)

    def _start_once(
        self, bus: Bus, request: CgroupRequest, properties: list[Property], root: str
    ) -> CgroupPlace:
        unit = unit_name(request.name)
        try:
            job = bus.call_raw(
                "StartTransientUnit",
                [
                    (ord("s"), unit.encode()),
                    (ord("s"), b"fail"),
                    *bus.properties(properties),
                    (ord("a"), b"(sa(sv))"),
                    (-1, None),
                ],
            )
            wait_job(bus, unit, job)
        except BusError as error:
            # Ours all the same if systemd was restarted between our call and its answer.
            if error.name != "UnitExists" or not _holds(bus, unit, request.pids, root):
                if error.name == "UnitExists":
                    _let_go(bus, unit, root)
                raise
        place = CgroupPlace(unit=unit, cgroup=_cgroup(bus, unit, root))
        if not place.cgroup:
            raise PymachineError(f"The scope {unit} ended at once: its processes are gone")
        return place

    def remove(self, place: CgroupPlace) -> None:
        """Kill what is left in the scope and wait until it is gone.

        A caller that lives in it is spared: the scope goes when that process ends.

        Raises:
            PymachineError: a process does not die, or systemd refused.
        """
        if not place.unit:
            return
        deadline = time.monotonic() + _KILL_TIMEOUT
        while True:
            try:
                with systemd_bus() as bus:
                    _remove(bus, place.unit, deadline)
            except BusError as error:
                if not error.lost or time.monotonic() > deadline:
                    raise PymachineError(f"Failed to stop {place.unit}: {error.message}") from error
                time.sleep(_POLL)
            else:
                return


def unit_name(name: str) -> str:
    """Return the scope's name of a machine, escaped as by systemd-escape(1)."""
    return f"machine-{escape(name)}.scope"


def escape(text: str) -> str:
    r"""Escape a part of a unit's name: "-" becomes "\x2d", "/" becomes "-"; systemd.unit(5)."""
    result = ""
    for index, byte in enumerate(text.encode()):
        char = chr(byte)
        if char == "/":
            result += "-"
        elif char in "-\\" or char not in _VALID_CHARS or (index == 0 and char == "."):
            result += f"\\x{byte:02x}"
        else:
            result += char
    return result


def check_slice(name: str) -> str:
    """Return the name of a slice if it is valid.

    Raises:
        ConfigError: it is not; systemd.slice(5).
    """
    stem = name.removesuffix(".slice")
    if stem == name or "" in stem.split("-") or set(stem) - _VALID_CHARS or len(name) > 255:
        raise ConfigError(f"'{name}' is no valid name of a slice", "Such as web.slice.")
    return name


def _properties(request: CgroupRequest) -> list[Property]:
    properties: list[Property] = [
        ("Description", "s", request.description),
        ("Slice", "s", check_slice(request.slice)),
        ("Delegate", "b", True),
        ("CollectMode", "s", "inactive-or-failed"),
        ("TasksMax", "t", _DEFAULT_TASKS_MAX),
        ("DevicePolicy", "s", "closed"),
        ("DeviceAllow", "a(ss)", _DEVICES),
        # The supervisor takes it as the wish to stop in order; other processes ignore it.
        ("KillSignal", "i", SIGURG),
        ("TimeoutStopUSec", "t", _STOP_TIMEOUT),
        ("PIDs", "au", list(request.pids)),
    ]
    if request.properties:
        from machinectl_py.managers.scope_properties import to_dbus

        properties += to_dbus(request.properties)
    return properties


def _find_root() -> str:
    try:
        return cgroupfs.find_cgroup2()
    except FileNotFoundError as error:
        raise UnsupportedError(
            "This host has no cgroup2 hierarchy mounted",
            "Boot it with systemd.unified_cgroup_hierarchy=1.",
        ) from error


def wait_job(bus: Bus, unit: str, job: bytes) -> None:
    """Wait for a job's end, which the private socket tells without a subscription."""
    deadline = time.monotonic() + _JOB_TIMEOUT
    while True:
        removed = bus.wait_signal("JobRemoved", deadline)
        if removed is None:
            raise PymachineError(f"systemd did not start {unit} within {_JOB_TIMEOUT:.0f} s")
        _number, path, _unit, result = removed
        if path == job:
            break
    if result != b"done":
        raise PymachineError(
            f"systemd did not start {unit}: its job ended with '{result.decode()}'",
            f"'journalctl -u {unit}' tells more.",
        )


def unit_state(bus: Bus, unit: str) -> str:
    """Return a unit's ActiveState, "" if systemd does not know it."""
    try:
        bus.call("GetUnit", "s", unit)  # reading a property would load the unit
        state: bytes = bus.get(bus.unit_path(unit), "Unit", "ActiveState", "s")
    except BusError as error:
        if error.name == "NoSuchUnit":
            return ""
        raise
    return state.decode()


def _cgroup(bus: Bus, unit: str, root: str) -> str:
    """Return the scope's cgroup in the file system, "" if it has none."""
    path: bytes = bus.get(bus.unit_path(unit), "Scope", "ControlGroup", "s")
    return f"{root}{path.decode()}" if path else ""


def _holds(bus: Bus, unit: str, pids: tuple[int, ...], root: str) -> bool:
    """Say whether one of these processes lives in the unit."""
    if unit_state(bus, unit) != "active":
        return False
    cgroup = _cgroup(bus, unit, root)
    return bool(cgroup) and any(pid in cgroupfs.pids(cgroup, recursive=True) for pid in pids)


def _let_go(bus: Bus, unit: str, root: str) -> None:
    """Help a unit of an earlier run to go; the caller holds the machine's lock.

    Raises:
        ConflictError: processes live in it, and systemd is not stopping them.
    """
    state = unit_state(bus, unit)
    if state == "failed":
        _ignore_missing(bus, "ResetFailedUnit", "s", unit)
    elif state == "active":
        cgroup = _cgroup(bus, unit, root)
        if cgroup and cgroupfs.populated(cgroup):
            raise ConflictError(
                f"Processes of an earlier run live in {unit}", f"'systemctl kill {unit}' ends them."
            )
        _ignore_missing(bus, "StopUnit", "ss", unit, "replace")


def _remove(bus: Bus, unit: str, deadline: float) -> None:
    if not unit_state(bus, unit):
        return
    cgroup = _cgroup(bus, unit, _find_root())
    if cgroup and cgroupfs.contains(cgroup, os.getpid()):
        _kill_others(cgroup, unit, deadline)
        return
    _ignore_missing(bus, "KillUnit", "ssi", unit, "all", SIGKILL)
    _ignore_missing(bus, "StopUnit", "ss", unit, "replace")  # it may be empty already
    if cgroup and not cgroupfs.wait_empty(cgroup, max(0.0, deadline - time.monotonic())):
        left = ", ".join(map(str, cgroupfs.pids(cgroup, recursive=True)))
        raise PymachineError(f"Processes in {unit} do not die: {left}")
    while state := unit_state(bus, unit):
        if state == "failed":
            _ignore_missing(bus, "ResetFailedUnit", "s", unit)
        elif state == "inactive":
            return  # only machined still refers to it
        if time.monotonic() > deadline:
            raise PymachineError(f"The scope {unit} does not go: it is '{state}'")
        time.sleep(_POLL)


def _kill_others(cgroup: str, unit: str, deadline: float) -> None:
    while left := set(cgroupfs.pids(cgroup, recursive=True)) - {os.getpid()}:
        if time.monotonic() > deadline:
            raise PymachineError(f"Processes in {unit} do not die: {', '.join(map(str, left))}")
        cgroupfs.kill_others(cgroup, os.getpid())
        time.sleep(_POLL)


def _ignore_missing(bus: Bus, method: str, signature: str, *values: str | int) -> None:
    try:
        bus.call(method, signature, *values)
    except BusError as error:
        if error.name not in ("NoSuchUnit", "NoSuchProcess", "ESRCH"):
            raise
