"""From merged values to a `MachineSpec`; pure."""

from __future__ import annotations

from machinectl_py.config.environment import api_writable, flag, refuse_unsupported
from machinectl_py.config.label_spec import LabelSpec
from machinectl_py.config.network_settings import by_network, further_links
from machinectl_py.config.network_values import from_port, ports_overlap
from machinectl_py.config.spec import (
    BindUserSpec,
    CgroupSpec,
    JournalForwardSpec,
    MachineSpec,
    NetworkSpec,
    Payload,
    Rlimit,
    RootSpec,
    SeccompSpec,
    TimeSpec,
    UsersSpec,
)
from machinectl_py.errors import ConfigError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.merge import Values
    from machinectl_py.config.spec import ConsoleMode, NetworkKind, PayloadKind

# What systemd-nspawn retains, in its words: systemd-nspawn(1), --capability=.
DEFAULT_CAPABILITIES = (
    "AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_OWNER KILL"
    " LEASE LINUX_IMMUTABLE MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP"
    " SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG"
)
# The kernel's limits for PID 1, NOFILE as systemd raises it; getrlimit(2).
_DEFAULT_RLIMITS = {
    "CORE": (0, -1),
    "CPU": (-1, -1),
    "DATA": (-1, -1),
    "FSIZE": (-1, -1),
    "MEMLOCK": (8 << 20, 8 << 20),
    "MSGQUEUE": (819200, 819200),
    "NICE": (0, 0),
    "NOFILE": (1024, 524288),
    "RSS": (-1, -1),
    "RTPRIO": (0, 0),
    "STACK": (8 << 20, -1),
}
_INIT_STOP_SIGNAL = 37  # SIGRTMIN+3: halt.target; systemd(1), "Signals"
_COMMAND_STOP_SIGNAL = 15
# Any of these makes the network namespace private.
_LINKS = (
    *("network_veth", "network_bridge", "network_zone", "network_interface"),
    *("network_macvlan", "network_ipvlan", "network_veth_extra", "network_managed"),
)


class Frame:
    """What a machine is besides its settings: names, and what was found of its root."""

    def __init__(
        self,
        *,
        name: str,
        root: str,
        kind: PayloadKind,
        argv: tuple[str, ...],
        console: ConsoleMode,
        tree_id: str,
        new_id: str,
        environment: dict[str, str],
        capability_numbers: dict[str, int],
        service: str,
    ) -> None:
        """Hold them.

        Args:
            name: of the machine.
            root: absolute path of its root directory or image.
            kind: what the payload is.
            argv: of the payload.
            console: where its input and output go.
            tree_id: the machine ID that the tree has, "" if none.
            new_id: the one that it gets else, if no setting gives it one.
            environment: the caller's.
            capability_numbers: "CAP_CHOWN" → 0, of this kernel.
            service: the manager, as the machine is told.
        """
        self.name, self.root, self.kind, self.argv = name, root, kind, argv
        self.console, self.tree_id, self.new_id = console, tree_id, new_id
        self.environment, self.capability_numbers = environment, capability_numbers
        self.service = service


def make_spec(values: Values, frame: Frame, default_users: UsersSpec | None = None) -> MachineSpec:
    """Return the complete description of a machine.

    Args:
        values: what options and files say.
        frame: what it is besides.
        default_users: the user namespace if nobody says anything of it; None for none.

    Raises:
        ConfigError: settings do not go together.
        UnsupportedError: a setting is not supported.
    """
    for field, what in (("mstack", "Mount stacks (--mstack=)"), ("oci_bundle", "OCI bundles")):
        if values.get(field, ""):
            raise UnsupportedError(f"{what} are not supported")
    environment = frame.environment
    network = _network(values, environment)
    users = _users(values, default_users)
    refuse_unsupported(environment)
    api, api_network = api_writable(environment)
    spec = MachineSpec(
        name=frame.name,
        root=frame.root,
        payload=_payload(values, frame),
        hostname=values.get("hostname", "") or frame.name,
        service=environment.get("SYSTEMD_NSPAWN_CONTAINER_SERVICE", "") or frame.service,
        machine_id=frame.tree_id or values.get("uuid", frame.new_id),
        rootfs=root_spec(values).replace(
            lock=flag(environment, "SYSTEMD_NSPAWN_LOCK", default=True)
        ),
        console=frame.console,
        background=values.get("background", ""),
        users=users,
        network=network,
        time=TimeSpec(
            private=values.get("private_time", True),
            monotonic=values.get("monotonic", 0),
            boottime=values.get("boottime", 0),
        ),
        api_writable=api,
        api_writable_network=api_network,
        tmpfs_tmp=flag(environment, "SYSTEMD_NSPAWN_TMPFS_TMP", default=True),
        capabilities=_capabilities(values, network, users, frame.capability_numbers),
        ambient=_mask(values.get("ambient_capability", ()), frame.capability_numbers),
        no_new_privileges=values.flag("no_new_privileges"),
        seccomp=_seccomp(values, environment),
        labels=LabelSpec(
            selinux=values.get("selinux_context", ""),
            selinux_apifs=values.get("selinux_apifs_context", ""),
            apparmor=values.get("apparmor_profile", ""),
        ),
        mounts=values.get("mounts", ()),
        rlimits=_rlimits(values),
        oom_score_adjust=values.get("oom_score_adjust", None),
        cpu_affinity=values.get("cpu_affinity", ()),
        personality=values.get("personality", ""),
        resolv_conf=values.get("resolv_conf", "auto"),
        timezone=values.get("timezone", "auto"),
        link_journal=values.get("link_journal", "auto").removeprefix("try-"),
        link_journal_try=values.get("link_journal", "").startswith("try-"),
        journal_forward=JournalForwardSpec(
            path=values.get("forward_journal", ""),
            limits=tuple(dict(values.get("forward_journal_limits", ())).items()),
        ),
        credentials=values.get("credentials", ()),
        bind_users=BindUserSpec(
            names=tuple(dict.fromkeys(values.get("bind_user", ()))),
            shell=values.get("bind_user_shell", ""),
            groups=tuple(dict.fromkeys(values.get("bind_user_groups", ()))),
        ),
        cgroup=CgroupSpec(
            manager=values.get("cgroup_manager", "auto"),
            slice=values.get("slice", "machine.slice"),
            properties=values.get("properties", ()),
            register=values.get("register", "auto") != "no",
        ),
    )
    check(spec)
    return spec


def _payload(values: Values, frame: Frame) -> Payload:
    stop = _INIT_STOP_SIGNAL if frame.kind == "boot" else _COMMAND_STOP_SIGNAL
    variables: dict[str, str] = {}
    if "TERM" in frame.environment:
        variables["TERM"] = frame.environment["TERM"]
    elif frame.console == "interactive" or frame.kind == "boot":
        variables["TERM"] = "vt220"
    if pairs := values.get("environment", ()):
        from machinectl_py.config.values import from_caller

        variables |= from_caller(pairs, frame.environment)
    return Payload(
        kind=frame.kind,
        argv=frame.argv,
        working_directory=values.get("chdir", ""),
        environment=tuple(variables.items()),
        user=values.get("user", ""),
        kill_signal=values.get("kill_signal", stop),
        notify_ready=values.flag("notify_ready"),
    )


def root_spec(values: Values) -> RootSpec:
    """Return how the root comes to be."""
    new, old = values.get("pivot_root", ("", ""))
    return RootSpec(
        image=bool(values.get("image", "")),
        image_policy=values.get("image_policy", ""),
        root_hash=values.get("root_hash", ""),
        root_hash_signature=values.get("root_hash_signature", ""),
        verity_data=values.get("verity_data", ""),
        template=values.get("template", ""),
        ephemeral=values.flag("ephemeral"),
        read_only=values.flag("read_only"),
        volatile=values.get("volatile", "no"),
        pivot_new=new,
        pivot_old=old,
        layers=values.get("layers", ()),
        layer=values.get("layer", ""),
        driver=values.get("driver", ""),
        made_from=values.get("made_from", ""),
        transient=values.flag("transient"),
    )


def has_user_namespace(values: Values, *, default: bool) -> bool:
    """Say whether the machine shall have one, and by `default` may."""
    return bool(values.get("private_users", ("pick" if default else "no", 0, 0))[0] != "no")


def _users(values: Values, default: UsersSpec | None) -> UsersSpec:
    """Return the user namespace; `default` is None where nobody has one who does not ask."""
    delegate = values.get("users_delegate", 0)
    if "private_users" in values.values:
        mode, base, count = values.values["private_users"]
    elif default is None:
        mode, base, count = "no", 0, 65536
    elif "users_ownership" in values.values:
        mode, base, count = "pick", 0, 65536
    else:
        return default.replace(delegate=delegate)
    return UsersSpec(
        mode=mode,
        base=base,
        count=count,
        ownership=values.get("users_ownership", "auto" if mode == "pick" else "off"),
        delegate=delegate,
    )


def _network(values: Values, environment: dict[str, str]) -> NetworkSpec:
    path = values.get("network_namespace_path", "")
    linked = any(values.get(field, ()) for field in _LINKS)
    kind: NetworkKind = "private" if linked or values.flag("private_network") else "host"
    if path and linked:
        raise ConfigError("--network-namespace-path= goes with no other option of the network")
    bridge, zone = values.get("network_bridge", ""), values.get("network_zone", "")
    managed, *attached = tuple(dict.fromkeys(values.get("network_managed", ()))) or ("",)
    networks = (managed, *attached)
    fixed = by_network("--network-address=", values.get("network_address", ()), networks)
    rate_in = by_network("--network-rate-in=", values.get("network_rate_in", ()), networks)
    rate_out = by_network("--network-rate-out=", values.get("network_rate_out", ()), networks)
    return NetworkSpec(
        kind="path" if path else kind,
        namespace_path=path,
        veth=values.flag("network_veth") or bool(bridge or zone or managed),
        address=values.get("network_mac", "")
        or _hardware_address(environment.get("SYSTEMD_NSPAWN_NETWORK_MAC", "")),
        bridge=bridge,
        zone=zone,
        managed=managed,
        attached=tuple(attached),
        further=further_links(attached, fixed, rate_in, rate_out),
        fixed=fixed.get(managed, ""),
        rate_in=rate_in.get(managed, 0),
        rate_out=rate_out.get(managed, 0),
        allow=values.get("network_allow", ()),
        deny=values.get("network_deny", ()),
        interfaces=values.get("network_interface", ()),
        macvlan=values.get("network_macvlan", ()),
        ipvlan=values.get("network_ipvlan", ()),
        veth_extra=values.get("network_veth_extra", ()),
        ports=values.get("ports", ()),
    )


def _hardware_address(text: str) -> str:
    """Return a link-layer address of $SYSTEMD_NSPAWN_NETWORK_MAC in its usual form; "" of ""."""
    from machinectl_py.config.network_values import mac

    try:
        return mac(text) if text else ""
    except ValueError as error:
        raise ConfigError(f"$SYSTEMD_NSPAWN_NETWORK_MAC is '{text}': expected {error}") from error


def _mask(names: tuple[str, ...], numbers: dict[str, int]) -> int:
    found = 0
    for name in names:
        number = name.removeprefix("CAP_")
        if name == "all":
            found |= (1 << len(numbers)) - 1
        elif number.isdigit() and int(number) < len(numbers):
            found |= 1 << int(number)
        elif name in numbers:
            found |= 1 << numbers[name]
        else:
            raise ConfigError(f"There is no capability {name}")
    return found


def _capabilities(
    values: Values, network: NetworkSpec, users: UsersSpec, numbers: dict[str, int]
) -> int:
    default = sum(1 << numbers[f"CAP_{name}"] for name in DEFAULT_CAPABILITIES.split())
    if network.kind == "private" or values.flag("private_network"):
        default |= 1 << numbers["CAP_NET_ADMIN"]
    added = _mask(values.get("capability", ()), numbers)
    dropped = _mask(values.get("drop_capability", ()), numbers)
    if network.kind != "private" and users.mode != "no":
        # Of no use: ports belong to the network namespace, and that to the host's user namespace.
        dropped |= 1 << numbers["CAP_NET_BIND_SERVICE"]
    return (default | added) & ~dropped


def _seccomp(values: Values, environment: dict[str, str]) -> SeccompSpec:
    words = values.get("system_call_filter", ())
    families = values.get("address_families", ())
    denied = tuple(word[1:] for word in families if word.startswith("~"))
    if denied and len(denied) < len(families):
        raise ConfigError("--restrict-address-families= either allows or denies, not both")
    suppress = flag(environment, "SYSTEMD_SUPPRESS_SYNC", default=False)
    return SeccompSpec(
        enabled=flag(environment, "SYSTEMD_SECCOMP", default=True),
        allow=tuple(word for word in words if not word.startswith("~")),
        deny=tuple(word[1:] for word in words if word.startswith("~")),
        profile=values.get("seccomp_profile", ""),
        suppress_sync=values.get("suppress_sync", suppress),
        families=denied or families,
        families_deny=bool(denied),
    )


def _rlimits(values: Values) -> tuple[Rlimit, ...]:
    limits = {
        name: Rlimit(name=name, soft=soft, hard=hard)
        for name, (soft, hard) in _DEFAULT_RLIMITS.items()
    }
    limits |= {limit.name: limit for limit in values.get("rlimits", ())}
    return tuple(limits.values())


def check(spec: MachineSpec) -> None:
    """Refuse settings that do not go together, as systemd-nspawn does.

    Raises:
        ConfigError: the first that does not.
    """
    rootfs, network, users = spec.rootfs, spec.network, spec.users
    chown = users.ownership == "chown"
    sealed = rootfs.root_hash or rootfs.root_hash_signature or rootfs.verity_data
    ambient_all = spec.ambient and spec.ambient & spec.capabilities != spec.ambient
    rules = (
        (network.bridge and network.zone, "--network-bridge= and --network-zone="),
        (network.managed and network.bridge, "--network= and --network-bridge="),
        (network.managed and network.zone, "--network= and --network-zone="),
        (network.fixed and not network.managed, "--network-address= and no managed network"),
        (
            (network.allow or network.deny) and not network.managed,
            "--allow= or --deny= and no managed network",
        ),
        (
            (network.rate_in or network.rate_out) and not network.veth,
            "--network-rate-in= or --network-rate-out= and no link of --network-veth or its like",
        ),
        (
            network.address and not network.veth,
            "--network-mac-address= and no link of --network-veth or its like",
        ),
        (network.ports and network.kind != "private", "--port= and the host's network"),
        (rootfs.ephemeral and rootfs.template, "--ephemeral and --template="),
        (rootfs.template and rootfs.image, "--template= and --image="),
        (sealed and not rootfs.image, "--root-hash= and a root directory"),
        (chown and rootfs.read_only, "--private-users-ownership=chown and --read-only"),
        (chown and rootfs.volatile != "no", "--private-users-ownership=chown and --volatile="),
        (
            rootfs.ephemeral
            and spec.link_journal in ("host", "guest")
            and not spec.link_journal_try,
            f"--ephemeral and --link-journal={spec.link_journal}",
        ),
        (users.mode == "no" and users.delegate, "--private-users-delegate= and the host's ids"),
        (users.mode != "no" and spec.api_writable, "--private-users= and writable API mounts"),
        (spec.ambient and spec.payload.kind == "boot", "--ambient-capability= and --boot"),
    )
    for wrong, what in rules:
        if wrong:
            raise ConfigError(f"{what} do not go together")
    if spec.root == "/" and not (rootfs.ephemeral or rootfs.volatile in ("yes", "state")):
        raise ConfigError(
            "The host's own root cannot be a machine's",
            "--ephemeral runs a snapshot of it, --volatile=yes or state one with its own /var.",
        )
    for at, port in enumerate(network.ports):
        if any(ports_overlap(port, other) for other in network.ports[:at]):
            raise ConfigError(f"The port {from_port(port)} is forwarded twice")
    if ambient_all:
        raise ConfigError("--ambient-capability= has capabilities that --capability= does not")
    if (spec.bind_users.shell or spec.bind_users.groups) and not spec.bind_users.names:
        raise ConfigError("--bind-user-shell= and --bind-user-group= need --bind-user=")
    if spec.journal_forward.limits and not spec.journal_forward.path:
        raise ConfigError("--forward-journal-max-use= and its like need --forward-journal=")
    if spec.bind_users.names and users.mode == "no":
        raise ConfigError("--bind-user= needs a user namespace", "Add --private-users=pick.")
