"""What the steps ask of the layers beside the plan: the cgroup manager and the registrar.

The plan may not import `managers`; the runtime hands these in. Any object of this shape will do.
"""

from __future__ import annotations

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Protocol

    ManagerKind = Literal["systemd", "unit", "embedded"]

    class CgroupManager(Protocol):
        """Who makes the machine's cgroup: `managers/systemd.py`, `unit.py`, `embedded.py`."""

        name: str

        def start(self, request: CgroupRequest) -> CgroupPlace:
            """Make the machine's cgroup, delegated, and wait until it stands.

            Raises:
                UnsupportedError: a property that this manager or host cannot set.
                ConflictError: a unit of that name is in the way and does not go.
                PymachineError: the manager refused; the line says why.
            """

        def locate(self, request: CgroupRequest) -> CgroupPlace:
            """Return the place that `start` would make, for undoing one that never answered.

            `cgroup` is "" where only the manager knows it.
            """

        def remove(self, place: CgroupPlace) -> None:
            """Kill what is left in the cgroup and take it away; nothing if it is gone."""

    class Registrar(Protocol):
        """Who keeps the host's list of machines: systemd-machined."""

        def register(self, request: RegisterRequest) -> None:
            """Enter the machine.

            Raises:
                PymachineError: refused; the line says why.
            """

        def unregister(self, name: str, leader: int) -> None:
            """Take the machine out if it is still that of this leader; nothing if it is gone."""

    class ServiceRunner(Protocol):
        """Who runs what outlives the supervisors: `managers/{systemd,embedded}_service.py`."""

        def start(self, request: ServiceRequest) -> None:
            """Start the service and wait until it serves; where it runs, have it read its files.

            Raises:
                PymachineError: it does not start; the line says why.
            """

        def stop(self, name: str) -> None:
            """End it, and wait until it has ended; nothing if it does not run."""


class ServiceRequest(Record):
    """A daemon that goes into the background once it serves, and reads its files at SIGHUP."""

    name: str  # of the unit, without ".service"
    description: str
    command: tuple[str, ...]
    pid_file: str


class CgroupRequest(Record):
    """A cgroup to be made for a machine."""

    name: str  # of the machine
    slice: str
    description: str
    root: str
    pids: tuple[int, ...]  # what the scope begins with: the supervisor
    properties: tuple[tuple[str, str], ...] = ()  # ("TasksMax", "100"), as systemctl writes them


class CgroupPlace(Record):
    """Where the machine's cgroup is."""

    unit: str  # scope or service; "" with the embedded manager
    cgroup: str  # absolute path in the file system, of the cgroup2 hierarchy


class RegisterRequest(Record):
    """A machine to be entered in the host's list."""

    name: str
    machine_id: str
    leader: int
    root: str
    service: str
    network_interfaces: tuple[int, ...] = ()
