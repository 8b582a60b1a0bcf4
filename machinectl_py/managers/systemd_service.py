"""Services as transient units of systemd; org.freedesktop.systemd1(5)."""

from __future__ import annotations

import os
import time

from machinectl_py.errors import PymachineError
from machinectl_py.managers.bus import BusError, systemd_bus
from machinectl_py.managers.systemd import unit_state, wait_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.managers.bus import Bus, Property
    from machinectl_py.plan.ports import ServiceRequest

_TIMEOUT = 30.0  # seconds, for a job and for systemd to come back
_POLL = 0.01  # seconds
_SIGHUP = 1


class SystemdServices:
    """Starts and stops transient services."""

    def start(self, request: ServiceRequest) -> None:
        """Start it, or have it read its files.

        Raises:
            PymachineError: it does not start.
        """
        _persist(request.name, lambda bus: _start(bus, request))

    def stop(self, name: str) -> None:
        """Stop it, and wait until it is gone.

        Raises:
            PymachineError: systemd refused.
        """
        _persist(name, lambda bus: _stop(bus, f"{name}.service"))


def _persist(name: str, act: Callable[[Bus], None]) -> None:
    """Do something over D-Bus, again if systemd is being restarted."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            with systemd_bus() as bus:
                act(bus)
                return
        except BusError as error:
            if not error.lost or time.monotonic() > deadline:
                raise PymachineError(f"{name}.service: {error.message}", error.hint) from error
        time.sleep(_POLL)


def _start(bus: Bus, request: ServiceRequest) -> None:
    unit = f"{request.name}.service"
    state = unit_state(bus, unit)
    if state == "active":
        bus.call("KillUnit", "ssi", unit, "main", _SIGHUP)
        return
    if state:
        _stop(bus, unit)
    job = bus.call_raw(
        "StartTransientUnit",
        [
            (ord("s"), unit.encode()),
            (ord("s"), b"fail"),
            *bus.properties(_properties(request)),
            (ord("a"), b"(sa(sv))"),
            (-1, None),
        ],
    )
    wait_job(bus, unit, job)


def _properties(request: ServiceRequest) -> list[Property]:
    properties: list[Property] = [
        ("Description", "s", request.description),
        ("Type", "s", "forking"),
        ("PIDFile", "s", request.pid_file),
        ("ExecStart", "a(sasb)", [(request.command[0], list(request.command), False)]),
        ("Restart", "s", "on-failure"),
        ("CollectMode", "s", "inactive-or-failed"),
    ]
    if os.stat("/proc/self/ns/net").st_ino != os.stat("/proc/1/ns/net").st_ino:
        properties.append(("NetworkNamespacePath", "s", f"/proc/{os.getpid()}/ns/net"))
    return properties


def _stop(bus: Bus, unit: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    asked = False
    while (state := unit_state(bus, unit)) and time.monotonic() < deadline:
        try:
            if state == "failed":
                bus.call("ResetFailedUnit", "s", unit)
            elif state == "inactive":
                return
            elif not asked:
                bus.call("StopUnit", "ss", unit, "replace")
                asked = True
        except BusError as error:
            if error.name != "NoSuchUnit":
                raise
        time.sleep(_POLL)
    if state:
        raise PymachineError(f"{unit} does not end: it is '{state}'")
