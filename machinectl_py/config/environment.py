"""Variables of our own environment that systemd-nspawn knows; systemd's docs/ENVIRONMENT.md."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError

_TRUE = ("1", "yes", "y", "true", "t", "on")
_FALSE = ("0", "no", "n", "false", "f", "off")
_SHARED = ("SHARE_SYSTEM", "SHARE_NS_IPC", "SHARE_NS_PID", "SHARE_NS_UTS")


def flag(environment: dict[str, str], name: str, *, default: bool) -> bool:
    """Return a truth value.

    Args:
        environment: the caller's.
        name: of the variable.
        default: what holds if it is not set.

    Raises:
        ConfigError: it is none.
    """
    text = environment.get(name)
    if text is None:
        return default
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ConfigError(f"${name}={text}: expected yes or no")


def api_writable(environment: dict[str, str]) -> tuple[bool, bool]:
    """Return whether /sys and /proc/sys shall be writable, and whether /proc/sys/net alone.

    Raises:
        ConfigError: $SYSTEMD_NSPAWN_API_VFS_WRITABLE is neither a truth value nor "network".
    """
    name = "SYSTEMD_NSPAWN_API_VFS_WRITABLE"
    if environment.get(name) == "network":
        return False, True
    return flag(environment, name, default=False), False


def refuse_unsupported(environment: dict[str, str]) -> None:
    """Refuse what would take a namespace from a machine, or give it hierarchies of cgroup v1.

    Raises:
        ConfigError: a variable is no truth value.
        UnsupportedError: one asks for what no machine of ours can have.
    """
    for name, what in (
        ("USE_CGNS", "Machines without a cgroup namespace"),
        ("UNIFIED_HIERARCHY", "Machines with the hierarchies of cgroup v1"),
    ):
        if not flag(environment, f"SYSTEMD_NSPAWN_{name}", default=True):
            raise UnsupportedError(f"{what} ($SYSTEMD_NSPAWN_{name}=0) are not supported")
    for name in _SHARED:
        if flag(environment, f"SYSTEMD_NSPAWN_{name}", default=False):
            raise UnsupportedError(
                f"Machines in the host's own namespaces ($SYSTEMD_NSPAWN_{name}) are not supported"
            )
