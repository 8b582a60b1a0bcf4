"""The host's list of machines: systemd-machined; org.freedesktop.machine1(5)."""

from __future__ import annotations

import time

from machinectl_py.errors import ConflictError, PymachineError
from machinectl_py.kernel.cgroupfs import cgroup_of
from machinectl_py.managers.bus import Bus, BusError, machined_bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.plan.ports import RegisterRequest

_TIMEOUT = 5.0  # seconds in which machined, or the message bus, may come back or let go of a name
_POLL = 0.02  # seconds
# By the message bus, which could not start machined: it has failed too often, or is masked.
_NOT_STARTED = ("TimedOut", "Timeout", "ServiceUnknown", "NoSuchUnit", "SpawnFailed", "UnitMasked")


class MachinedRegistrar:
    """Enters machines in systemd-machined's list, so that machinectl and the like know them."""

    def register(self, request: RegisterRequest) -> None:
        """Enter the machine, whose leader must live in the machine's unit already.

        machined does not make the unit but takes the one that the leader is in. A machine of
        that name whose leader is dead, or is this leader, is taken out first.

        Raises:
            ConflictError: another machine of that name runs.
            PymachineError: refused; the line says why.
        """

        def enter(bus: Bus) -> None:
            try:
                _register(bus, request)
            except BusError as error:
                if error.name not in ("MachineExists", "EEXIST"):
                    raise
                _take_out_stale(bus, request)
                _register(bus, request)

        _with_machined(f"Failed to register '{request.name}' with systemd-machined", enter)

    def unregister(self, name: str, leader: int) -> None:
        """Take the machine out if it is still that of this leader; nothing if it is gone.

        Nor if machined cannot be reached for long: once back, it forgets those without a leader.

        Raises:
            PymachineError: refused; the line says why.
        """

        def take_out(bus: Bus) -> None:
            if _leader(bus, name)[0] == leader:
                _unregister(bus, name)

        failure = f"Failed to unregister '{name}' from systemd-machined"
        _with_machined(failure, take_out, or_not=True)


def _with_machined(failure: str, act: Callable[[Bus], None], *, or_not: bool = False) -> None:
    """Do an act that may be repeated; again where machined or the bus was just restarted.

    Args:
        failure: what an error's line begins with.
        act: what to do.
        or_not: give up without an error where machined cannot be reached.
    """
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            with machined_bus() as bus:
                act(bus)
        except BusError as error:
            unreachable = error.lost or error.name in _NOT_STARTED
            again = error.lost or error.name in ("MachineExists", "EEXIST")
            if not again or time.monotonic() > deadline:
                if or_not and unreachable:
                    return
                raise PymachineError(f"{failure}: {error.message}", error.hint) from error
            time.sleep(_POLL)
        else:
            return


def _register(bus: Bus, request: RegisterRequest) -> None:
    bus.call(
        "RegisterMachineWithNetwork",
        "sayssusai",
        request.name,
        list(bytes.fromhex(request.machine_id)),
        request.service,
        "container",
        request.leader,
        request.root,
        list(request.network_interfaces),
    )


def _leader(bus: Bus, name: str) -> tuple[int, str]:
    """Return leader and unit of a registered machine, (0, "") if there is none of that name."""
    try:
        path: bytes = bus.call("GetMachine", "s", name)
        leader: int = bus.get(path.decode(), "Machine", "Leader", "u")
        unit: bytes = bus.get(path.decode(), "Machine", "Unit", "s")
    except BusError as error:
        if error.name in ("NoSuchMachine", "UnknownObject", "ENXIO"):
            return 0, ""
        raise
    return leader, unit.decode()


def _unregister(bus: Bus, name: str) -> None:
    try:
        bus.call("UnregisterMachine", "s", name)
    except BusError as error:
        if error.name not in ("NoSuchMachine", "ENXIO"):
            raise


def _take_out_stale(bus: Bus, request: RegisterRequest) -> None:
    leader, unit = _leader(bus, request.name)
    if leader not in (0, request.leader) and _lives(leader, unit):
        raise ConflictError(
            f"Another machine '{request.name}' is registered with systemd-machined",
            f"Its leader is process {leader}: 'machinectl status {request.name}' shows it.",
        )
    if leader:
        _unregister(bus, request.name)


def _lives(pid: int, unit: str) -> bool:
    """Say whether the process lives, and in this unit: else its PID has been used again."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
        zombie = text[text.rindex(b")") + 2 :].startswith(b"Z")
        return not zombie and f"/{unit}/" in f"{cgroup_of(pid)}/"
    except (FileNotFoundError, ProcessLookupError):
        return False
