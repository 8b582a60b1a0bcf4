"""The unit cgroup manager: the machine lives in the unit that we run in; --keep-unit.

For services such as systemd-nspawn@.service, whose limits and logs shall be the machine's.
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError, PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.plan.ports import CgroupPlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.ports import CgroupRequest

_KILL_TIMEOUT = 10.0  # seconds for killed processes to die
_LEAVES = ("payload", "supervisor")  # what the plan makes below the unit's cgroup


class UnitManager:
    """Takes the cgroup of the service or scope that the caller lives in."""

    name = "unit"

    def locate(self, request: CgroupRequest) -> CgroupPlace:  # noqa: ARG002 - the port's shape
        """Return no place: `start` makes nothing, so there is nothing to undo."""
        return CgroupPlace(unit="", cgroup="")

    def start(self, request: CgroupRequest) -> CgroupPlace:
        """Return the unit of the first of `request.pids`, or of this process if there is none.

        Raises:
            UnsupportedError: not in a unit, or it is not delegated; or properties are given,
                which are the unit's own.
            ConflictError: a machine lives in the unit already.
        """
        if request.properties:
            names = ", ".join(name for name, _value in request.properties)
            raise UnsupportedError(
                f"Properties cannot be set on the unit that this runs in: {names}",
                "Set them in the unit itself.",
            )
        cgroup = cgroupfs.directory_of(request.pids[0] if request.pids else os.getpid())
        unit, path = find_unit(cgroup)
        if not _is_delegated(path):
            raise UnsupportedError(
                f"The unit {unit} is not delegated to its processes",
                "Add Delegate=yes to it.",
            )
        if cgroupfs.populated(f"{path}/payload"):
            raise ConflictError(f"A machine lives in the unit {unit} already")
        return CgroupPlace(unit=unit, cgroup=path)

    def remove(self, place: CgroupPlace) -> None:
        """Kill the payload and remove the cgroups that were made below the unit's.

        The unit itself is systemd's; a caller that lives in `supervisor` stays there.

        Raises:
            PymachineError: a process does not die.
        """
        if not place.cgroup:
            return
        for leaf in _LEAVES:
            path = f"{place.cgroup}/{leaf}"
            if cgroupfs.contains(path, os.getpid()):
                continue
            cgroupfs.kill(path)
            if not cgroupfs.wait_empty(path, _KILL_TIMEOUT):
                left = ", ".join(map(str, cgroupfs.pids(path, recursive=True)))
                raise PymachineError(f"Processes in {path} do not die: {left}")
            cgroupfs.remove(path)


def find_unit(cgroup: str) -> tuple[str, str]:
    """Return the name of the innermost service or scope of a cgroup, and its path.

    Raises:
        UnsupportedError: it is in none.
    """
    parts = cgroup.split("/")
    for count in range(len(parts), 0, -1):
        name = parts[count - 1]
        if name.endswith((".service", ".scope")) and name != "init.scope":
            # systemd puts "_" before names that the kernel keeps for itself; cg_escape.
            return name.removeprefix("_"), "/".join(parts[:count])
    raise UnsupportedError(
        f"This process is in no unit of systemd but in {cgroup}",
        "--keep-unit is for use inside a service or scope.",
    )


def _is_delegated(cgroup: str) -> bool:
    """Say whether systemd has marked the cgroup as delegated; see its CGROUP_DELEGATION.md."""
    for attribute in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(cgroup, attribute) == b"1":
                return True
        except OSError:  # none of that name, or no right to read it
            continue
    return False
