"""The table of settings: a row for each thing that systemd-nspawn can be told, and for our own.

From it come the options of `boot`, `run`, `plan` and `nspawn`, their help, the manual page and the
completions; the keys of `.nspawn` files; and what `show --settings` prints. Names, keys and
meanings are those of systemd-nspawn(1) and systemd.nspawn(5); keys of our own stand in sections
whose names begin with "X-", which systemd passes over.
"""

from __future__ import annotations

from machinectl_py.config.option import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GROUPS = {
    "root": "Root",
    "payload": "Payload",
    "identity": "Identity",
    "cgroup": "Resources",
    "users": "User namespace",
    "network": "Network",
    "security": "Security",
    "integration": "Integration with the host",
    "mounts": "Mounts",
    "console": "Console",
    "credentials": "Credentials",
    "time": "Time",
}


class Setting(Option):
    """A row: an option, a key, or both, of the same meaning. `name` is "" for a key alone.

    A setting given on the command line hides what a file says of its `field`, and of all fields of
    its `masks`, as systemd-nspawn has it. Of one that is `many`, an empty text takes back those
    before it.
    """

    field: str = ""  # of the values that `config/merge.py` collects
    kind: str = ""  # how its text is read: a name in `config/kinds.py`; "": by the verb itself
    group: str = ""  # a key of GROUPS
    section: str = ""  # "" if it is an option alone
    key: str = ""
    masks: str = ""  # a name that several fields share
    privileged: bool = False  # not believed from beside an image; systemd-nspawn(1), --settings=
    since: int = 0  # the version of systemd that has it since; 0: before 245, or our own


def _flag(field: str, group: str, text: str, **more: Any) -> Setting:
    """Return a row of a truth value, whose option may stand alone."""
    return Setting(
        field=field,
        kind="boolean",
        group=group,
        help=text,
        value="BOOL",
        optional_value="yes",
        **more,
    )


def _limits() -> tuple[Setting, ...]:
    names = "CPU FSIZE DATA STACK CORE RSS NOFILE AS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE"
    return tuple(
        Setting(
            name="",
            field="rlimits",
            kind=f"limit-{name}",
            group="cgroup",
            help=f"the resource limit {name}: SOFT[:HARD]",
            section="Exec",
            key=f"Limit{name}",
            many=True,
            privileged=True,
        )
        for name in f"{names} RTPRIO RTTIME".split()
    )


def _mount(kind: str, value: str, key: str, text: str) -> Setting:
    """Return a row of a mount; its option is called as its kind."""
    return Setting(
        field="mounts",
        kind=kind,
        group="mounts",
        help=text,
        name=f"--{kind}",
        value=value,
        section="Files",
        key=key,
        many=True,
        masks="mounts",
        privileged=True,
    )


_ROOT = (
    Setting(
        field="directory", group="root", name="--directory", short="-D", value="DIR",
        help="the root directory",
    ),
    Setting(
        field="machine", group="root", name="--machine", short="-M", value="NAME",
        help="the name of the machine",
    ),
    Setting(
        field="image", kind="path", group="root", name="--image", short="-i", value="PATH",
        help="the root is a disk image or block device",
    ),
    Setting(
        field="image_policy", kind="text", group="root", name="--image-policy", value="POLICY",
        help="which partitions of the image may be used how", since=254,
    ),
    Setting(
        field="mstack", kind="path", group="root", name="--mstack", value="DIR",
        help="the root is a stack of mounts; not supported", since=260,
    ),
    Setting(
        field="oci_bundle", kind="path", group="root", name="--oci-bundle", value="DIR",
        help="root and settings of an OCI runtime bundle; not supported",
    ),
    Setting(
        field="template", kind="path", group="root", name="--template", value="DIR",
        help="fill a root that does not exist yet from this tree",
    ),
    _flag(
        "ephemeral", "root", "run on a snapshot, removed at the end",
        name="--ephemeral", short="-x", section="Exec", key="Ephemeral", privileged=True,
    ),
    _flag(
        "read_only", "root", "mount the root read-only",
        name="--read-only", section="Files", key="ReadOnly",
    ),
    Setting(
        field="volatile", kind="volatile", group="root", name="--volatile", value="MODE",
        optional_value="yes", section="Files", key="Volatile",
        help="forget changes: yes (only /usr stays), state (/var is empty), overlay, no",
    ),
    Setting(
        field="root_hash", kind="root-hash", group="root", name="--root-hash", value="HASH",
        help="dm-verity's root hash of the image",
    ),
    Setting(
        field="root_hash_signature", kind="text", group="root", name="--root-hash-sig",
        value="SIGNATURE", help="its signature: a file, or base64:…",
    ),
    Setting(
        field="verity_data", kind="path", group="root", name="--verity-data", value="PATH",
        help="dm-verity's data of the image",
    ),
    Setting(
        field="pivot_root", kind="pivot-root", group="root", name="--pivot-root",
        value="PATH[:PATH]", section="Exec", key="PivotRoot",
        help="a directory inside becomes /, and what was / is then at the second path",
    ),
)  # fmt: skip

_PAYLOAD = (
    _flag(
        "boot", "payload", "search an init and run it as PID 1",
        name="--boot", short="-b", section="Exec", key="Boot", masks="start",
    ),
    _flag(
        "as_pid2", "payload", "a stub init as PID 1, the payload as PID 2",
        name="--as-pid2", short="-a", section="Exec", key="ProcessTwo", masks="start",
    ),
    Setting(
        name="", field="parameters", kind="words", group="payload", section="Exec",
        key="Parameters", help="the command line of the payload", masks="start", many=True,
    ),
    Setting(
        field="chdir", kind="absolute-path", group="payload", name="--chdir", value="DIR",
        section="Exec", key="WorkingDirectory", help="the working directory inside",
    ),
    Setting(
        field="environment", kind="variable", group="payload", name="--setenv", short="-E",
        value="NAME[=VALUE]", many=True,
        help="set a variable of PID 1; without a value, as it is here",
    ),
    Setting(
        name="", field="environment", kind="environment", group="payload", section="Exec",
        key="Environment", many=True, help="variables of PID 1, as words NAME=VALUE",
    ),
    Setting(
        field="user", kind="user", group="payload", name="--uid", short="-u", value="USER",
        section="Exec", key="User", help="run the payload as this user of the machine",
    ),
    Setting(
        field="kill_signal", kind="signal", group="payload", name="--kill-signal", value="SIGNAL",
        section="Exec", key="KillSignal", help="for an orderly stop",
    ),
    _flag(
        "notify_ready", "payload", "report being ready when the payload does",
        name="--notify-ready", section="Exec", key="NotifyReady",
    ),
    _flag(
        "suppress_sync", "payload", "let fsync(2) and its like do nothing",
        name="--suppress-sync", section="Exec", key="SuppressSync", since=250,
    ),
)  # fmt: skip

_IDENTITY = (
    Setting(
        field="hostname", kind="hostname", group="identity", name="--hostname", value="NAME",
        section="Exec", key="Hostname", help="its hostname, by default its name",
    ),
    Setting(
        field="uuid", kind="id128", group="identity", name="--uuid", value="UUID",
        section="Exec", key="MachineID", privileged=True,
        help="its machine ID, by default that of the tree",
    ),
)  # fmt: skip

_CGROUP = (
    Setting(
        field="slice", kind="slice", group="cgroup", name="--slice", short="-S", value="SLICE",
        section="X-Cgroup", key="Slice", privileged=True, help="by default machine.slice",
    ),
    Setting(
        field="properties", kind="assignment", group="cgroup", name="--property",
        value="NAME=VALUE", section="X-Cgroup", key="Property", many=True, privileged=True,
        help="a property of the scope",
    ),
    Setting(
        field="register", kind="register", group="cgroup", name="--register", value="MODE",
        optional_value="yes", help="with systemd-machined: yes, no, auto",
    ),
    _flag("keep_unit", "cgroup", "stay in the unit that this runs in", name="--keep-unit"),
    Setting(
        field="cgroup_manager", kind="manager", group="cgroup", name="--cgroup-manager",
        value="NAME", section="X-Cgroup", key="Manager", privileged=True,
        help="auto, systemd, unit, embedded",
    ),
    Setting(
        field="rlimits", kind="rlimit", group="cgroup", name="--rlimit", value="NAME=SOFT[:HARD]",
        many=True, help="a resource limit, such as NOFILE=1024",
    ),
    *_limits(),
    Setting(
        field="oom_score_adjust", kind="oom-score", group="cgroup", name="--oom-score-adjust",
        value="NUMBER", section="Exec", key="OOMScoreAdjust", privileged=True,
        help="how soon it is killed when memory is short: -1000 to 1000",
    ),
    Setting(
        field="cpu_affinity", kind="numbers", group="cgroup", name="--cpu-affinity",
        value="NUMBERS", section="Exec", key="CPUAffinity", privileged=True,
        help="the processors that it may use, such as 0-3,5",
    ),
    Setting(
        field="personality", kind="personality", group="cgroup", name="--personality",
        value="ARCHITECTURE", section="Exec", key="Personality",
        help="the architecture that uname(2) shows",
    ),
)  # fmt: skip

_USERS = (
    Setting(
        field="private_users", kind="private-users", group="users", name="--private-users",
        value="MODE", optional_value="yes", section="Exec", key="PrivateUsers", masks="users",
        privileged=True,
        help="user namespace: no, yes (as the root's owner), pick, identity, managed, UID[:N]",
    ),
    Setting(
        field="users_ownership", kind="ownership", group="users",
        name="--private-users-ownership", value="MODE", section="Files",
        key="PrivateUsersOwnership", masks="users", privileged=True, since=249,
        help="how files follow: off, chown, map, foreign, auto",
    ),
    Setting(
        field="users_ownership", kind="chown", group="users", name="--private-users-chown",
        value="BOOL", optional_value="yes", section="Files", key="PrivateUsersChown", masks="users",
        privileged=True, help="the older name of --private-users-ownership=chown",
    ),
    Setting(
        field="users_delegate", kind="number", group="users", name="--private-users-delegate",
        value="NUMBER", section="Exec", key="PrivateUsersDelegate", masks="users",
        privileged=True, since=260, help="further ranges of ids for machines inside",
    ),
    Setting(
        field="private_users", kind="pick", group="users", short="-U", name="--U", value="BOOL",
        optional_value="yes", masks="users",
        help="a user namespace with a picked range, if possible",
    ),
)  # fmt: skip


def _network(kind: str, option: str, key: str, text: str, **more: Any) -> Setting:
    """Return a row of the network; its field is called as its option."""
    return Setting(
        field=option.replace("-", "_"),
        kind=kind,
        group="network",
        help=text,
        name=f"--{option}",
        section="Network",
        key=key,
        masks="network",
        privileged=True,
        **more,
    )


_NETWORK = (
    _network(
        "boolean", "private-network", "Private",
        "a network namespace of its own, with lo alone", value="BOOL", optional_value="yes",
    ),
    _network(
        "absolute-path", "network-namespace-path", "NamespacePath",
        "join this network namespace", value="PATH", since=256,
    ),
    _network(
        "interface-pair", "network-interface", "Interface",
        "move a link of the host in, and back at the end", value="NAME[:NAME]", many=True,
    ),
    _network(
        "macvlan-pair", "network-macvlan", "MACVLAN",
        "a macvlan child of a link of the host", value="NAME[:NAME]", many=True,
    ),
    _network(
        "ipvlan-pair", "network-ipvlan", "IPVLAN",
        "an ipvlan child of a link of the host", value="NAME[:NAME]", many=True,
    ),
    _network(
        "boolean", "network-veth", "VirtualEthernet",
        "a virtual link: ve-NAME here, host0 inside", value="BOOL", short="-n",
        optional_value="yes",
    ),
    _network(
        "veth-pair", "network-veth-extra", "VirtualEthernetExtra",
        "a further virtual link: its name here, and inside", value="NAME[:NAME]", many=True,
    ),
    _network(
        "interface", "network-bridge", "Bridge",
        "a virtual link vb-NAME in this bridge", value="NAME",
    ),
    _network(
        "zone", "network-zone", "Zone",
        "a virtual link in the bridge vz-NAME, made and removed by need", value="NAME",
    ),
    Setting(
        field="network_managed", kind="network-name", group="network", name="--network",
        value="NAME", optional_value="default", section="X-Network", key="Network",
        many=True, masks="network", privileged=True,
        help="a managed network, with addresses, routes and names at once; again for others",
    ),
    Setting(
        field="network_address", kind="network-address", group="network",
        name="--network-address", value="[NETWORK:]ADDRESS", section="X-Network", key="Address",
        many=True, privileged=True,
        help="its address in a managed network; it has the other version's of that number, too",
    ),
    Setting(
        field="network_mac", kind="mac", group="network", name="--network-mac-address",
        value="ADDRESS", section="X-Network", key="MACAddress", privileged=True,
        help="the link-layer address of host0",
    ),
    Setting(
        field="network_rate_in", kind="network-rate", group="network", name="--network-rate-in",
        value="[NETWORK:]BITS", section="X-Network", key="RateIn", many=True, privileged=True,
        help="at most so many bits a second to it by this network's link, or host0, such as 10M",
    ),
    Setting(
        field="network_rate_out", kind="network-rate", group="network", name="--network-rate-out",
        value="[NETWORK:]BITS", section="X-Network", key="RateOut", many=True, privileged=True,
        help="at most so many bits a second from it by the same",
    ),
    Setting(
        field="network_allow", kind="traffic", group="network", name="--allow",
        value="in|out:PEER[:PROTOCOL[:PORT]]", section="X-Network", key="Allow", many=True,
        privileged=True,
        help="connections to it, or of its own, in a managed network; alone it denies the others",
    ),
    Setting(
        field="network_deny", kind="traffic", group="network", name="--deny",
        value="in|out:PEER[:PROTOCOL[:PORT]]", section="X-Network", key="Deny", many=True,
        privileged=True, help="no such connections; PEER is any, network, ADDRESS[/PREFIX]",
    ),
    _network(
        "port", "port", "Port",
        "forward ports of the host", short="-p", many=True,
        value="[PROTOCOL:][ADDRESS:]PORT[-PORT][:PORT[-PORT]]",
    ).replace(field="ports", masks=""),
)  # fmt: skip

_SECURITY = (
    Setting(
        field="capability", kind="capabilities", group="security", name="--capability",
        value="CAP,…", section="Exec", key="Capability", many=True, masks="capabilities",
        privileged=True, help="retain capabilities besides; all",
    ),
    Setting(
        field="drop_capability", kind="capabilities", group="security", name="--drop-capability",
        value="CAP,…", section="Exec", key="DropCapability", many=True, masks="capabilities",
        help="drop capabilities; all",
    ),
    Setting(
        field="ambient_capability", kind="capabilities", group="security",
        name="--ambient-capability", value="CAP,…", section="Exec", key="AmbientCapability",
        many=True, masks="capabilities", privileged=True, since=248,
        help="pass capabilities on to a payload that is not root",
    ),
    _flag(
        "no_new_privileges", "security", "let no program inside gain privileges",
        name="--no-new-privileges", section="Exec", key="NoNewPrivileges",
    ),
    Setting(
        field="system_call_filter", kind="filter", group="security", name="--system-call-filter",
        value="NAMES", section="Exec", key="SystemCallFilter", many=True, privileged=True,
        help="allow system calls and @groups, with ~ before the first deny them",
    ),
    Setting(
        field="seccomp_profile", kind="path", group="security", name="--seccomp-profile",
        value="FILE", section="X-Security", key="SeccompProfile", privileged=True,
        help="filter system calls by an OCI profile in the default's place",
    ),
    Setting(
        field="address_families", kind="families", group="security",
        name="--restrict-address-families", value="NAMES", section="Exec",
        key="RestrictAddressFamilies", many=True, privileged=True, since=261,
        help="allow only these socket families, with ~ before the first deny them; none",
    ),
    Setting(
        field="selinux_context", kind="text", group="security", name="--selinux-context",
        short="-Z", value="LABEL", section="X-Security", key="SELinuxContext", privileged=True,
        help="SELinux label of the processes",
    ),
    Setting(
        field="selinux_apifs_context", kind="text", group="security",
        name="--selinux-apifs-context", short="-L", value="LABEL", section="X-Security",
        key="SELinuxAPIFSContext", privileged=True, help="SELinux label of the API file systems",
    ),
    Setting(
        field="apparmor_profile", kind="text", group="security", name="--apparmor-profile",
        value="NAME", section="X-Security", key="AppArmorProfile", privileged=True,
        help="AppArmor profile of the processes",
    ),
)  # fmt: skip

_INTEGRATION = (
    Setting(
        field="resolv_conf", kind="resolv-conf", group="integration", name="--resolv-conf",
        value="MODE", section="Exec", key="ResolvConf",
        help="off, delete, auto, copy-, bind- or replace-{host,static,uplink,stub}",
    ),
    Setting(
        field="timezone", kind="timezone", group="integration", name="--timezone", value="MODE",
        section="Exec", key="Timezone", help="off, copy, bind, symlink, delete, auto",
    ),
    Setting(
        field="link_journal", kind="link-journal", group="integration", name="--link-journal",
        value="MODE", section="Exec", key="LinkJournal", privileged=True,
        help="share its journal: no, host, guest, try-host, try-guest, auto",
    ),
    Setting(
        field="link_journal", kind="try-guest", group="integration", name="--j", short="-j",
        value="BOOL", optional_value="yes", help="--link-journal=try-guest",
    ),
    Setting(
        field="forward_journal", kind="path", group="integration", name="--forward-journal",
        value="PATH", since=261, help="forward its journal to this file or directory",
    ),
    *(
        Setting(
            field="forward_journal_limits", kind=f"journal-{key}", group="integration",
            name=f"--forward-journal-{name}", value="VALUE", many=True, since=261,
            help=f"{key}= of that journal",
        )
        for name, key in (
            ("max-use", "MaxUse"), ("keep-free", "KeepFree"),
            ("max-file-size", "MaxFileSize"), ("max-files", "MaxFiles"),
        )
    ),
)  # fmt: skip

_MOUNTS = (
    _mount(
        "bind", "PATH[:PATH[:OPTIONS]]", "Bind",
        "show a path of the host inside",
    ),
    _mount(
        "bind-ro", "PATH[:PATH[:OPTIONS]]", "BindReadOnly",
        "the same, read-only",
    ),
    _mount(
        "inaccessible", "PATH", "Inaccessible",
        "hide a path",
    ),
    _mount(
        "tmpfs", "PATH[:OPTIONS]", "TemporaryFileSystem",
        "mount a tmpfs inside",
    ),
    _mount(
        "overlay", "PATH:…:PATH", "Overlay",
        "mount an overlay inside: lower directories, the upper one, the target",
    ),
    _mount(
        "overlay-ro", "PATH:…:PATH", "OverlayReadOnly",
        "the same, read-only",
    ),
    Setting(
        field="bind_user", kind="user-list", group="mounts", name="--bind-user", value="USER",
        section="Files", key="BindUser", many=True, privileged=True, since=249,
        help="let a user of the host exist inside, with the home directory",
    ),
    Setting(
        field="bind_user_shell", kind="shell", group="mounts", name="--bind-user-shell",
        value="SHELL", section="Files", key="BindUserShell", since=258,
        help="the shell of those users: yes (the host's), no, or a path",
    ),
    Setting(
        field="bind_user_groups", kind="user-list", group="mounts", name="--bind-user-group",
        value="GROUP", many=True, since=258, help="a group inside that those users are in",
    ),
)  # fmt: skip

_CONSOLE = (
    Setting(
        field="console", kind="console", group="console", name="--console", value="MODE",
        help="interactive, read-only, passive, pipe, autopipe",
    ),
    Setting(
        field="console", kind="pipe", group="console", name="--pipe", short="-P", value="BOOL",
        optional_value="yes", help="--console=pipe: give the payload our own standard streams",
    ),
    Setting(
        field="background", kind="background", group="console", name="--background",
        value="COLOR", since=256, help="tint the terminal while attached: an SGR colour, or none",
    ),
)  # fmt: skip

_CREDENTIALS = (
    Setting(
        field="credentials", kind="credential", group="credentials", name="--set-credential",
        value="NAME:VALUE", section="X-Credentials", key="Set", many=True, privileged=True,
        since=247, help="a credential for the payload",
    ),
    Setting(
        field="load_credentials", kind="credential-file", group="credentials",
        name="--load-credential", value="NAME:PATH", section="X-Credentials", key="Load",
        many=True, privileged=True, since=247, help="the same, read from a file",
    ),
)  # fmt: skip

_TIME = (
    _flag(
        "private_time", "time", "clocks of its own, which start at zero",
        name="--private-time", section="X-Time", key="Private", privileged=True,
    ),
    Setting(
        field="monotonic", kind="span", group="time", name="--monotonic", value="SPAN",
        section="X-Time", key="Monotonic", privileged=True,
        help="where its CLOCK_MONOTONIC starts, such as 2h",
    ),
    Setting(
        field="boottime", kind="span", group="time", name="--boottime", value="SPAN",
        section="X-Time", key="Boottime", privileged=True,
        help="where its CLOCK_BOOTTIME, and so uptime(1), starts",
    ),
)  # fmt: skip

SETTINGS: tuple[Setting, ...] = (
    *_ROOT, *_PAYLOAD, *_IDENTITY, *_CGROUP, *_USERS, *_NETWORK, *_SECURITY, *_INTEGRATION,
    *_MOUNTS, *_CONSOLE, *_CREDENTIALS, *_TIME,
)  # fmt: skip


def by_key() -> dict[tuple[str, str], Setting]:
    """Return the rows by section and key."""
    return {(row.section, row.key): row for row in SETTINGS if row.key}
