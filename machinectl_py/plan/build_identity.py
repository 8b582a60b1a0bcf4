"""What a machine is called and given of the host: clocks, files of /etc, journal, credentials.

Pure functions of spec and facts, each for one place in the order that `build.py` makes.
"""

from __future__ import annotations

from machinectl_py.config.credentials import check_credentials
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.plan.host_files import RESOLVED_STUB
from machinectl_py.plan.steps.credentials import CREDENTIALS_DIRECTORY, PlaceCredentials
from machinectl_py.plan.steps.host_files import (
    LOCALTIME,
    BindFile,
    CloneFile,
    CopyFile,
    LinkTimezone,
    RemoveFile,
    zone_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.host_files import HostFiles
    from machinectl_py.plan.step import Step


def own_time(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether the machine gets a time namespace of its own.

    Raises:
        UnsupportedError: its clocks are to start at a given time, which needs one.
    """
    if spec.time.private and facts.time_namespace:
        return True
    if spec.time.monotonic or spec.time.boottime:
        raise UnsupportedError(
            "The machine's clocks cannot be set without a time namespace of its own",
            "It takes Linux 5.6, and a spec whose time is private.",
        )
    return False


def more_environment(spec: MachineSpec, facts: HostFacts) -> dict[str, str]:
    """Return the variables of the payload that depend on what it is and on the host."""
    found = {f"container_host_{key}": value for key, value in facts.files.os_ids}
    if spec.payload.kind != "boot":  # an init knows the machine's own
        found["LANG"] = "C.UTF-8"
    if spec.credentials:
        found["CREDENTIALS_DIRECTORY"] = CREDENTIALS_DIRECTORY
    return found


def credentials(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the step that places the credentials, if there are any.

    Raises:
        ConfigError: they are not valid, or too large.
    """
    check_credentials(spec.credentials)
    return (PlaceCredentials(credentials=spec.credentials),) if spec.credentials else ()


def host_file_sources(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps before the pivot that take up the host's files."""
    sources = {step.source: None for step in host_files(spec, facts) if hasattr(step, "source")}
    return tuple(CloneFile(source=source) for source in sources)


def host_files(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that bring the host's time zone and resolver into /etc."""
    return (*_timezone(spec, facts.files), *_resolv_conf(spec, facts.files))


def _etc_writable(spec: MachineSpec) -> bool:
    return not spec.rootfs.read_only or spec.rootfs.volatile in ("yes", "overlay")


def _timezone(spec: MachineSpec, files: HostFiles) -> tuple[Step, ...]:
    mode, zone = spec.timezone, zone_of(files.localtime)
    writable = _etc_writable(spec)
    if mode == "auto" and files.localtime_file:
        mode = "copy" if writable else "bind"
    elif mode == "auto" and files.localtime:
        mode = "symlink" if writable else "bind"
    elif mode == "auto":
        mode = "delete" if writable else "off"
    if mode == "off":
        return ()
    if mode == "delete":
        return (RemoveFile(target=LOCALTIME),)
    if mode == "symlink":
        return (LinkTimezone(source=LOCALTIME, target=LOCALTIME, zone=zone),)
    if mode == "bind":
        return (BindFile(source=LOCALTIME, target=LOCALTIME, follow=True),)
    if mode == "copy":
        return (CopyFile(source=LOCALTIME, target=LOCALTIME, replace_link=True),)
    raise ConfigError(f"'{mode}' is no way to set the time zone")


_RESOLV_CONF = "/etc/resolv.conf"
# What systemd-resolved offers; systemd-resolved.service(8), "/etc/resolv.conf".
_RESOLV_SOURCES = {
    "host": _RESOLV_CONF,
    "static": "/usr/lib/systemd/resolv.conf",
    "uplink": "/run/systemd/resolve/resolv.conf",
    "stub": RESOLVED_STUB,
}


def _resolv_conf(spec: MachineSpec, files: HostFiles) -> tuple[Step, ...]:
    mode = spec.resolv_conf
    if mode == "auto":
        mode = _automatic_resolv_conf(spec, files)
    if mode == "off":
        return ()
    if mode == "delete":
        return (RemoveFile(target=_RESOLV_CONF),)
    act, _, which = mode.partition("-")
    source = _RESOLV_SOURCES.get(which)
    if source and act in ("copy", "replace"):
        replace = act == "replace"
        return (CopyFile(source=source, target=_RESOLV_CONF, replace_link=replace),)
    if source and act == "bind":
        return (BindFile(source=source, target=_RESOLV_CONF),)
    raise ConfigError(f"'{mode}' is no way to set {_RESOLV_CONF}")


def _automatic_resolv_conf(spec: MachineSpec, files: HostFiles) -> str:
    if spec.network.kind != "host":  # the host's servers may not be reached from there
        return "off"
    writable = _etc_writable(spec)
    act = "copy" if writable else "bind"
    if files.resolved_stub:
        return f"{act}-stub"
    if files.resolv_conf:
        return f"{act}-host"
    return "delete" if writable else "off"
