"""Which cgroup manager makes the machine's cgroup, and whether machined is told of it."""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.ports import CgroupManager, ManagerKind, ServiceRunner

_SYSTEM_BUS = "/run/dbus/system_bus_socket"
# By precedence; systemd.unit(5). A unit that is masked is a link to /dev/null.
_UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def systemd_runs() -> bool:
    """Say whether systemd is this host's PID 1; sd_booted(3).

    /run/systemd/system alone may be another host's /run, seen from a container of its own PIDs.
    """
    if not os.path.isdir("/run/systemd/system"):
        return False
    try:
        with open("/proc/1/comm", encoding="utf-8", errors="replace") as file:
            return file.read() == "systemd\n"
    except OSError:  # /proc with hidepid=
        return True


def manager_kind(name: str, keep_unit: bool) -> ManagerKind:
    """Return which manager it will be.

    Args:
        name: "auto" or the name of a manager, as --cgroup-manager has it.
        keep_unit: the machine shall live in the unit that we run in.

    Raises:
        ConfigError: no manager has that name, or it does not go with `keep_unit`.
        UnsupportedError: the manager needs systemd, which is not PID 1 here.
    """
    if name not in ("auto", "systemd", "unit", "embedded"):
        raise ConfigError(
            f"There is no cgroup manager '{name}'", "It is auto, systemd, unit or embedded."
        )
    if keep_unit and name in ("systemd", "embedded"):
        raise ConfigError(f"--keep-unit does not go with the cgroup manager '{name}'")
    if name == "embedded":
        return "embedded"
    if not systemd_runs():
        if name == "auto" and not keep_unit:
            return "embedded"
        subject = "--keep-unit" if keep_unit else f"The cgroup manager '{name}'"
        raise UnsupportedError(
            f"{subject} needs systemd as PID 1, which this host does not have",
            "The cgroup manager 'embedded' does without.",
        )
    return "unit" if keep_unit or name == "unit" else "systemd"


def manager_of(kind: str) -> CgroupManager:
    """Return the manager of this kind; only its own module is imported."""
    if kind == "embedded":
        from machinectl_py.managers.embedded import EmbeddedManager

        return EmbeddedManager()
    if kind == "unit":
        from machinectl_py.managers.unit import UnitManager

        return UnitManager()
    from machinectl_py.managers.systemd import SystemdManager

    return SystemdManager()


def service_runner() -> ServiceRunner:
    """Return who runs services on this host."""
    if systemd_runs():
        from machinectl_py.managers.systemd_service import SystemdServices

        return SystemdServices()
    from machinectl_py.managers.embedded_service import EmbeddedServices

    return EmbeddedServices()


def choose(name: str, keep_unit: bool) -> CgroupManager:
    """Return the manager for this host and these options; errors as of `manager_kind`."""
    return manager_of(manager_kind(name, keep_unit))


def refuse_dead_bus() -> None:
    """Hold that the message bus answers, if it should be there; without it nothing is registered.

    Its socket stays in the file system when nobody listens any more.

    Raises:
        UnsupportedError: nobody listens.
    """
    import _socket

    bus = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        bus.connect(_SYSTEM_BUS)
    except ConnectionRefusedError:
        raise UnsupportedError(
            "The machine cannot be registered, as the host's message bus does not run",
            "'systemctl start dbus.socket' starts it, --register=no does without.",
        ) from None
    except OSError:  # whatever it is, registering tells
        pass
    finally:
        bus.close()


def has_machined() -> bool:
    """Say whether systemd-machined can be reached: the bus is there, and its unit not masked.

    It takes only machines that live in a unit of systemd, so none of the embedded manager's.
    """
    if not os.path.exists(_SYSTEM_BUS):
        return False
    for directory in _UNIT_DIRECTORIES:
        path = f"{directory}/systemd-machined.service"
        if os.path.lexists(path):
            return os.path.realpath(path) != "/dev/null"
    return False
