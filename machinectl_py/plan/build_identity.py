"""What a machine is called and given of the host: clocks, files of /etc, journal, credentials.

Pure functions of spec and facts, each for one place in the order that `build.py` makes. What few
machines want is imported where it is wanted: 0.1 to 0.5 ms of each start for each module.
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.plan.host_files import RESOLVED_STUB
from machinectl_py.plan.steps.birth import NewTimeNamespace
from machinectl_py.plan.steps.host_files import (
    LOCALTIME,
    BindFile,
    CloneFile,
    CopyFile,
    LinkTimezone,
    RemoveFile,
    zone_of,
)
from machinectl_py.plan.steps.journal import AttachJournal, CloneJournal, PrepareJournal
from machinectl_py.plan.users import ids_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import CredentialSpec, MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.host_files import HostFiles
    from machinectl_py.plan.step import Step


def check_looks(spec: MachineSpec) -> None:
    """Refuse a background that no terminal has.

    Raises:
        ConfigError: it is not the parameters of an SGR sequence; console_codes(4).
    """
    if not set(spec.background) <= set("0123456789;:"):
        raise ConfigError(
            f"'{spec.background}' is no background of a terminal", "One is 44, or 48;2;0;0;80."
        )


def time_namespace(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's step that makes or prepares the time namespace, if there is one.

    Raises:
        UnsupportedError: as `own_time`.
    """
    if not own_time(spec, facts):
        return ()
    if facts.may_set_clocks:
        return (NewTimeNamespace(monotonic=spec.time.monotonic, boottime=spec.time.boottime),)
    from machinectl_py.plan.steps.clocks import PrepareClocks

    return (
        PrepareClocks(
            monotonic=spec.time.monotonic,
            boottime=spec.time.boottime,
            own_users=spec.users.mode != "no",
        ),
    )


def enter_time(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step inside that joins a time namespace which PID 1 is not born in."""
    if facts.may_set_clocks or not own_time(spec, facts):
        return ()
    from machinectl_py.plan.steps.clocks import EnterTimeNamespace

    return (EnterTimeNamespace(),)


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
    found = {f"container_host_{key}": value for key, value in facts.os_ids}
    if spec.payload.kind != "boot":  # an init knows the machine's own
        found["LANG"] = "C.UTF-8"
    if _all_credentials(spec):
        from machinectl_py.plan.steps.credentials import CREDENTIALS_DIRECTORY

        found["CREDENTIALS_DIRECTORY"] = CREDENTIALS_DIRECTORY
    return found


def credentials(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the step that places the credentials, if there are any.

    Raises:
        ConfigError: they are not valid, or too large.
    """
    wanted = _all_credentials(spec)
    if not wanted:
        return ()
    from machinectl_py.config.credentials import check_credentials
    from machinectl_py.plan.steps.credentials import PlaceCredentials

    check_credentials(wanted)
    return (PlaceCredentials(credentials=wanted),)


def _all_credentials(spec: MachineSpec) -> tuple[CredentialSpec, ...]:
    """Return those asked for, and that which has journald forward.

    Raises:
        ConfigError: both are the same.
    """
    if not spec.journal_forward.path:
        return spec.credentials
    from machinectl_py.config.credentials import encode
    from machinectl_py.plan.steps import journal_forward

    if any(credential.name == journal_forward.CREDENTIAL for credential in spec.credentials):
        raise ConfigError(
            f"The credential '{journal_forward.CREDENTIAL}' and a forwarded journal exclude"
            " each other"
        )
    place = encode(journal_forward.CREDENTIAL, journal_forward.INSIDE.encode())
    return (*spec.credentials, place)


def prepare_journal(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's step of linking the journal, if it is to be linked.

    Raises:
        ConfigError: host and machine have the same machine ID.
        UnsupportedError: the root is a disk image, to whose inside the host can have no link.
    """
    if not _links_journal(spec, facts):
        return ()
    if spec.link_journal == "guest" and spec.rootfs.image:
        raise UnsupportedError(
            "The journal in a disk image cannot be linked from the host",
            "With --link-journal=host it lies on the host.",
        )
    return (
        PrepareJournal(
            machine_id=spec.machine_id,
            lenient=_lenient_journal(spec),
            root=spec.root,
            mode=spec.link_journal,
        ),
    )


def clone_journal(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step before the birth for a journal that is linked."""
    if not _links_journal(spec, facts):
        return ()
    ids = ids_of(spec.users) if spec.users.mode != "no" else 0
    lenient = _lenient_journal(spec)
    return (CloneJournal(machine_id=spec.machine_id, lenient=lenient, ids=ids),)


def clone_journal_socket(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the step before the pivot for a journal that is forwarded."""
    if not spec.journal_forward.path:
        return ()
    from machinectl_py.plan.steps import journal_forward

    return (journal_forward.CloneJournalSocket(machine=spec.name),)


def attach_journal(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step after all mounts for a journal that is linked."""
    if not _links_journal(spec, facts):
        return ()
    return (AttachJournal(machine_id=spec.machine_id, lenient=_lenient_journal(spec)),)


def _lenient_journal(spec: MachineSpec) -> bool:
    return spec.link_journal_try or spec.link_journal == "auto"


def _links_journal(spec: MachineSpec, facts: HostFacts) -> bool:
    if spec.link_journal == "no" or spec.rootfs.ephemeral:
        return False
    if spec.machine_id != facts.files.machine_id:
        return True
    if _lenient_journal(spec):
        return False
    raise ConfigError(
        f"Host and machine have the same machine ID, {spec.machine_id}; no journal can be linked",
        "An empty /etc/machine-id in the root has the machine get one of its own.",
    )


def forward_journal(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the supervisor's step of receiving the machine's journal, if that is wanted.

    Raises:
        ConfigError: a limit is not known.
        UnsupportedError: this host has no receiver.
    """
    wanted = spec.journal_forward
    if not wanted.path:
        return ()
    from machinectl_py.plan.steps import journal_forward

    for name, _ in wanted.limits:
        if name not in journal_forward.LIMIT_OPTIONS:
            raise ConfigError(f"There is no limit '{name}' of a forwarded journal")
    if not facts.files.journal_remote:
        raise UnsupportedError(
            "A journal cannot be forwarded: systemd-journal-remote is not installed",
            "On Debian it is in the package systemd-journal-remote.",
        )
    return (
        journal_forward.ForwardJournal(
            machine=spec.name,
            program=facts.files.journal_remote,
            output=wanted.path,
            limits=wanted.limits,
            for_all=spec.users.mode != "no",
        ),
    )


def attach_journal_socket(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the step that shows the receiver's socket, if there is one."""
    if not spec.journal_forward.path:
        return ()
    from machinectl_py.plan.steps.journal_forward import AttachJournalSocket

    return (AttachJournalSocket(),)


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


def clone_homes(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps before the pivot that take up the homes of bound users."""
    if not spec.bind_users.names:
        return ()
    from machinectl_py.plan.bind_users import bound_users
    from machinectl_py.plan.steps.bind_users import CloneHome

    users = bound_users(spec, facts)
    return tuple(CloneHome(user=user.host.name, home=user.host.home) for user in users)


def bind_users(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step that shows bound users and their homes inside, if there are any."""
    if not spec.bind_users.names:
        return ()
    from machinectl_py.plan.bind_users import bound_users
    from machinectl_py.plan.steps.bind_users import BindUsers

    users = bound_users(spec, facts)
    wanted = spec.bind_users
    return (BindUsers(users=users, shell=wanted.shell, groups=wanted.groups),) if users else ()
