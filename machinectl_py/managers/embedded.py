"""The embedded cgroup manager: cgroups in the file system, where no systemd manages the host.

Everything stands below one cgroup of pymachine's own, `pymachine` in the root of the hierarchy:
a machine is `pymachine/NAME.machine`, or `pymachine/a.slice/a-b.slice/NAME.machine` in another
slice than machine.slice. The suffix keeps a machine's name from meeting that of a slice or of a
file such as `cgroup.procs`.
"""

from __future__ import annotations

import errno
import os

from machinectl_py.errors import ConfigError, ConflictError, PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.plan.ports import CgroupPlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.plan.ports import CgroupRequest

OWN_CGROUP = "pymachine"
DEFAULT_SLICE = "machine.slice"
_KILL_TIMEOUT = 10.0  # seconds; a process in uninterruptible sleep does not die before it wakes
_CPU_PERIOD = 100_000  # microseconds, of cpu.max


class EmbeddedManager:
    """Makes and removes cgroups itself."""

    name = "embedded"

    def locate(self, request: CgroupRequest) -> CgroupPlace:
        """Return the place that `start` would make.

        Raises:
            UnsupportedError: there is no cgroup2 hierarchy.
            ConfigError: the slice's name is not valid.
        """
        levels = [_find_root(), OWN_CGROUP, *slice_levels(request.slice), f"{request.name}.machine"]
        return CgroupPlace(unit="", cgroup="/".join(levels))

    def start(self, request: CgroupRequest) -> CgroupPlace:
        """Make the cgroup, set its properties and move `request.pids` into it.

        All controllers that the hierarchy has are delegated, as far as they can be; those that
        a property needs must be.

        Raises:
            ConfigError: a property's value is not valid.
            ConflictError: processes live in a cgroup of that name.
            UnsupportedError: a property that this manager or host cannot set.
            PymachineError: the kernel refused.
        """
        place = self.locate(request)
        settings = _settings(request.properties)
        try:
            _check_controllers(settings)
            _make_machine(place.cgroup)
        except OSError as error:
            raise _refused("make", place.cgroup, error) from error
        try:
            _delegate(place.cgroup, {setting[1].partition(".")[0] for setting in settings})
            for _name, attribute, value in settings:
                cgroupfs.write(place.cgroup, attribute, value)
            for pid in request.pids:
                cgroupfs.move(place.cgroup, pid)
        except OSError as error:
            self.remove(place)
            raise _refused("set up", place.cgroup, error) from error
        except BaseException:
            self.remove(place)
            raise
        return place

    def remove(self, place: CgroupPlace) -> None:
        """Kill what is left in the cgroup and remove it, with the empty ones above it.

        A caller that lives in it is moved beside PID 1 first: that cgroup, other than the
        root where controllers are handed on, is sure to take processes.

        Raises:
            PymachineError: a process does not die.
        """
        root = _find_root()
        try:
            if cgroupfs.contains(place.cgroup, os.getpid()):
                cgroupfs.move(cgroupfs.directory_of(1), os.getpid())
            cgroupfs.kill(place.cgroup)
            if not cgroupfs.wait_empty(place.cgroup, _KILL_TIMEOUT):
                left = ", ".join(map(str, cgroupfs.pids(place.cgroup, recursive=True)))
                raise PymachineError(f"Processes in {place.cgroup} do not die: {left}")
            cgroupfs.remove(place.cgroup)
        except OSError as error:
            raise _refused("remove", place.cgroup, error) from error
        _remove_empty_parents(place.cgroup, f"{root}/{OWN_CGROUP}")


def slice_levels(name: str) -> list[str]:
    """Return the nested slices of a slice, outermost first: "a-b.slice" is in "a.slice".

    machine.slice, where all machines are unless told otherwise, has no level of its own.

    Raises:
        ConfigError: no valid name of a slice; systemd.slice(5).
    """
    stem, dot, suffix = name.rpartition(".")
    parts = stem.split("-")
    if dot + suffix != ".slice" or "" in parts or "/" in name:
        raise ConfigError(f"'{name}' is no valid name of a slice", "Such as web.slice.")
    if name == DEFAULT_SLICE:
        return []
    return ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))]


def _find_root() -> str:
    try:
        return cgroupfs.find_cgroup2()
    except FileNotFoundError as error:
        raise UnsupportedError(
            "This host has no cgroup2 hierarchy mounted",
            "Mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        ) from error


def _make_machine(cgroup: str) -> None:
    """Make the cgroup with those above it; an empty one of an earlier run is removed first."""
    if cgroupfs.populated(cgroup):
        raise ConflictError(
            f"Processes of an earlier run live in {cgroup}",
            "'pymachine terminate' ends them.",
        )
    cgroupfs.remove(cgroup)
    for _attempt in range(100):
        try:
            os.makedirs(os.path.dirname(cgroup), 0o755, exist_ok=True)
            os.mkdir(cgroup, 0o755)
        except FileNotFoundError:  # the parent went with the last machine in it just now
            continue
        return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), cgroup)


def _delegate(cgroup: str, needed: set[str]) -> None:
    """Hand the controllers down from the root to the cgroup.

    Raises:
        OSError: one that is needed cannot be handed on.
    """
    level = root = _find_root()
    for name in cgroup[len(root) + 1 :].split("/"):
        cgroupfs.enable(level, needed)
        cgroupfs.enable_all(level)
        level = f"{level}/{name}"


def _remove_empty_parents(cgroup: str, own: str) -> None:
    """Remove the cgroups between the machine's and our own, and ours, as far as they are empty."""
    parent = os.path.dirname(cgroup)
    while f"{parent}/".startswith(f"{own}/"):
        try:
            os.rmdir(parent)
        except OSError as error:
            if error.errno != errno.ENOENT:
                return  # another machine is in it
        parent = os.path.dirname(parent)


def _refused(act: str, cgroup: str, error: OSError) -> PymachineError:
    where = f" ({error.filename})" if error.filename not in (None, cgroup) else ""
    return PymachineError(f"Failed to {act} the cgroup {cgroup}: {error.strerror}{where}")


def _settings(properties: tuple[tuple[str, str], ...]) -> list[tuple[str, str, str]]:
    """Return properties as (name, file of the cgroup, what is written there)."""
    if not properties:
        return []
    convert = _converters()
    settings = []
    for name, text in properties:
        if name not in convert:
            raise UnsupportedError(
                f"The embedded cgroup manager cannot set the property '{name}'",
                f"It knows {', '.join(convert)}.",
            )
        attribute, to_kernel = convert[name]
        try:
            settings.append((name, attribute, to_kernel(text)))
        except ValueError as error:
            raise ConfigError(f"{name}={text} is not valid: expected {error}") from error
    return settings


def _check_controllers(settings: list[tuple[str, str, str]]) -> None:
    if not settings:
        return
    available = cgroupfs.controllers(_find_root())
    for name, attribute, _value in settings:
        controller = attribute.partition(".")[0]
        if controller not in available:
            raise UnsupportedError(
                f"Property '{name}' needs the cgroup2 controller '{controller}', "
                f"which this host does not have{_why_missing(controller)}"
            )


def _why_missing(controller: str) -> str:
    """Say that a cgroup v1 hierarchy holds the controller, if one does; cgroups(7)."""
    v1 = "blkio" if controller == "io" else controller
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        bound = [line.split(":")[1].split(",") for line in file]
    return ": cgroup v1 holds it" if any(v1 in names for names in bound) else ""


def _converters() -> dict[str, tuple[str, Callable[[str], str]]]:
    """Return, by property, the file of the cgroup and how its text is made."""
    from machinectl_py.managers import properties as read

    def limit(parse: Callable[[str], int]) -> Callable[[str], str]:
        return lambda text: "max" if (value := parse(text)) == read.INFINITY else str(value)

    def weight(text: str) -> str:
        return str(read.parse_weight(text))

    def numbers(text: str) -> str:
        return ",".join(map(str, read.parse_numbers(text)))

    def quota(text: str) -> str:
        value = read.parse_quota(text)
        if value == read.INFINITY:
            return f"max {_CPU_PERIOD}"
        return f"{max(1000, value * _CPU_PERIOD // 1_000_000)} {_CPU_PERIOD}"

    size = limit(read.parse_bytes)
    return {
        "TasksMax": ("pids.max", limit(read.parse_tasks)),
        "MemoryMin": ("memory.min", size),
        "MemoryLow": ("memory.low", size),
        "MemoryHigh": ("memory.high", size),
        "MemoryMax": ("memory.max", size),
        "MemorySwapMax": ("memory.swap.max", size),
        "MemoryZSwapMax": ("memory.zswap.max", size),
        "CPUWeight": ("cpu.weight", weight),
        "CPUQuota": ("cpu.max", quota),
        "IOWeight": ("io.weight", weight),
        "AllowedCPUs": ("cpuset.cpus", numbers),
        "AllowedMemoryNodes": ("cpuset.mems", numbers),
    }
