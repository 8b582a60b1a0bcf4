"""The complete, frozen description of a machine to be started.

No I/O, no default left open, nothing of the host: what a `MachineSpec` says does not depend on
where it will run. docs/design/settings.md says which option and key fills which field.
"""

from __future__ import annotations

from machinectl_py.config.label_spec import LabelSpec
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    PayloadKind = Literal["boot", "command", "as-pid2"]
    ConsoleMode = Literal["interactive", "read-only", "passive", "pipe", "background"]
    ManagerName = Literal["auto", "systemd", "unit", "embedded"]
    VolatileMode = Literal["no", "yes", "state", "overlay"]
    UsersMode = Literal["no", "fixed", "root", "pick", "managed"]
    Ownership = Literal["off", "chown", "map", "foreign", "auto"]
    BindIdmap = Literal["noidmap", "idmap", "rootidmap", "owneridmap"]
    JournalLink = Literal["no", "host", "guest", "auto"]
    NetworkKind = Literal["host", "private", "path"]


class Payload(Record):
    """What PID 1 of the machine executes."""

    kind: PayloadKind = "boot"
    argv: tuple[str, ...] = ()  # "boot": arguments of the init; else the command
    working_directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    user: str = ""  # name or uid by the machine's own user database; "" is root
    kill_signal: int = 0  # the init's signal for an orderly stop
    notify_ready: bool = False  # our caller's READY=1 waits for the payload's


class RootSpec(Record):
    """How the root comes to be; its place is `MachineSpec.root`."""

    image: bool = False  # `MachineSpec.root` is a disk image or block device, not a directory
    image_policy: str = ""  # systemd.image-policy(7); "" is systemd-nspawn's default
    root_hash: str = ""  # dm-verity, hexadecimal
    root_hash_signature: str = ""  # "base64:…" or the path of a file
    verity_data: str = ""  # path
    lock: bool = True  # two machines that write to one root shut one another out
    template: str = ""  # a tree to fill a missing root from
    ephemeral: bool = False  # run on a snapshot, which goes with the machine
    read_only: bool = False
    volatile: VolatileMode = "no"
    pivot_new: str = ""  # this directory inside becomes / …
    pivot_old: str = ""  # … and what was / is then here
    # Directories over the root, the topmost first, and the one whose upper/ and work/ take what
    # the machine writes; "" has it write to the root itself.
    layers: tuple[str, ...] = ()
    layer: str = ""
    driver: str = ""  # how it was made of an image: "overlay", "btrfs", "reflink"; "" in place
    made_from: str = ""  # the image's name
    transient: bool = False  # made for this start alone: root and record go with the machine


class UsersSpec(Record):
    """The user namespace; user_namespaces(7)."""

    mode: UsersMode = "no"  # "root": the range is that of the root directory's owner
    base: int = 0  # with "fixed": the host's id of 0 inside; "pick": the one to try first
    count: int = 65536
    ownership: Ownership = "off"
    delegate: int = 0  # further ranges of 65536 ids, mapped for nested machines
    map_mounts: bool = False  # directories of the host show the host's ids, unless told otherwise


class BindMount(Record):
    """A file or directory of the host, seen inside."""

    source: str  # "+/path": inside the root; "": a temporary directory
    target: str
    read_only: bool = False
    recursive: bool = True
    optional: bool = False  # a missing source is passed over
    idmap: BindIdmap = "noidmap"


class TmpfsMount(Record):
    """A tmpfs of the machine's own."""

    target: str
    options: str = "mode=0755"


class OverlayMount(Record):
    """An overlay of directories; paths as in `BindMount.source`, the lowest first."""

    lower: tuple[str, ...]
    upper: str  # "": a temporary directory
    target: str
    read_only: bool = False


class InaccessibleMount(Record):
    """A path that nobody inside can enter or read."""

    hidden: str


class Rlimit(Record):
    """A resource limit of the payload; -1 is infinity."""

    name: str  # the kernel's name without RLIMIT_, in capitals
    soft: int
    hard: int


class CgroupSpec(Record):
    """Where the machine stands in the host's tree of cgroups, and how it is limited."""

    manager: ManagerName = "auto"
    slice: str = "machine.slice"
    properties: tuple[tuple[str, str], ...] = ()  # of the scope, as `systemctl set-property`
    register: bool = True


class SeccompSpec(Record):
    """Which system calls the payload may make."""

    enabled: bool = True
    allow: tuple[str, ...] = ()  # names and @groups added to the default
    deny: tuple[str, ...] = ()  # names and @groups taken away
    profile: str = ""  # JSON text of an OCI profile, in the place of the default
    suppress_sync: bool = False  # fsync(2) and its like succeed without effect
    families: tuple[str, ...] = ()  # AF_… names; () restricts nothing
    families_deny: bool = False  # `families` are those denied, else the only ones allowed


class NetworkPair(Record):
    """A link here and its name inside."""

    host: str
    inside: str


class PortSpec(Record):
    """A port of the host, or a range of them, that is forwarded to the machine."""

    protocol: str  # "tcp", "udp", "sctp"
    host: int  # the first
    inside: int  # the first
    count: int = 1
    address: str = ""  # of the host, to which alone it applies; "" is any, IPv4 and IPv6


class Traffic(Record):
    """Connections of a kind, by who begins them: "in" from a peer, "out" from the machine."""

    direction: str
    peer: str  # "any", "network", or ADDRESS/PREFIX
    protocol: str = ""  # "" is any; "icmp" is that of IPv6, too
    first: int = 0  # port that is connected to, 0 for any
    last: int = 0


class FurtherLink(Record):
    """What is set of the link to a further managed network, as of the first in NetworkSpec."""

    network: str
    fixed: str = ""
    rate_in: int = 0
    rate_out: int = 0


class NetworkSpec(Record):
    """The network namespace and its links."""

    kind: NetworkKind = "host"
    namespace_path: str = ""  # with kind "path"
    veth: bool = False
    address: str = ""  # of the link layer, of the veth inside; "" is one made of its name
    bridge: str = ""  # the veth's host end is a port of this bridge
    zone: str = ""  # …of the bridge vz-ZONE, made and removed by need
    managed: str = ""  # …of the bridge of this managed network
    attached: tuple[str, ...] = ()  # further managed networks, by a link pm-NETWORK each
    further: tuple[FurtherLink, ...] = ()  # of those of them where anything is set
    fixed: str = ""  # an address in `managed`, with the number of the others; "" is as leased
    allow: tuple[Traffic, ...] = ()  # in it, of what is begun; else all but what is denied
    deny: tuple[Traffic, ...] = ()
    rate_in: int = 0  # bits a second to the machine, by the veth; 0 is no limit
    rate_out: int = 0  # and from it
    interfaces: tuple[NetworkPair, ...] = ()
    macvlan: tuple[NetworkPair, ...] = ()
    ipvlan: tuple[NetworkPair, ...] = ()
    veth_extra: tuple[NetworkPair, ...] = ()
    ports: tuple[PortSpec, ...] = ()

    def further_link(self, network: str) -> FurtherLink:
        """Return what is set of the link to a further managed network."""
        found = (one for one in self.further if one.network == network)
        return next(found, FurtherLink(network=network))


class CredentialSpec(Record):
    """A credential for the payload; systemd.exec(5), CREDENTIALS."""

    name: str
    data: str  # base64


class BindUserSpec(Record):
    """Users of the host who exist inside too, with their homes."""

    names: tuple[str, ...] = ()
    shell: str = ""  # "": the machine's default; "host": the host's; else a path
    groups: tuple[str, ...] = ()  # groups inside that they are members of


class JournalForwardSpec(Record):
    """Forwarding of the machine's journal to the host; systemd-nspawn(1), --forward-journal=."""

    path: str = ""  # file or directory; "" forwards nothing
    limits: tuple[tuple[str, str], ...] = ()  # ("MaxUse", "1G"), as journal-remote.conf(5)


class TimeSpec(Record):
    """The time namespace; time_namespaces(7). Clocks start at these nanoseconds."""

    private: bool = True
    monotonic: int = 0
    boottime: int = 0


class MachineSpec(Record):
    """A machine to be started."""

    name: str
    root: str  # absolute path of the root directory or image, no symbolic link in it
    payload: Payload
    hostname: str
    machine_id: str  # 32 hexadecimal digits
    service: str = "pymachine"  # the manager, as the payload and systemd-machined are told
    rootfs: RootSpec = RootSpec()
    console: ConsoleMode = "background"
    background: str = ""  # the terminal's background while attached: "", or an SGR colour
    users: UsersSpec = UsersSpec()
    network: NetworkSpec = NetworkSpec()
    time: TimeSpec = TimeSpec()
    api_writable: bool = False  # /sys and /proc/sys, for machines that hold machines
    api_writable_network: bool = False  # /proc/sys/net alone
    tmpfs_tmp: bool = True  # a tmpfs on /tmp
    capabilities: int = 0  # the bounding set, bit per capability
    ambient: int = 0  # the ambient set of the payload
    no_new_privileges: bool = False
    seccomp: SeccompSpec = SeccompSpec()
    labels: LabelSpec = LabelSpec()
    mounts: tuple[BindMount | TmpfsMount | OverlayMount | InaccessibleMount, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adjust: int | None = None  # None: as our caller's
    cpu_affinity: tuple[int, ...] = ()  # (): all
    personality: str = ""  # "x86", "x86-64", …; "" leaves it
    resolv_conf: str = "auto"
    timezone: str = "auto"
    link_journal: JournalLink = "auto"
    link_journal_try: bool = False  # a journal that cannot be linked is passed over
    journal_forward: JournalForwardSpec = JournalForwardSpec()
    credentials: tuple[CredentialSpec, ...] = ()
    bind_users: BindUserSpec = BindUserSpec()
    cgroup: CgroupSpec = CgroupSpec()

    @property
    def private_network(self) -> bool:
        """Whether the machine has a network namespace of its own making."""
        return self.network.kind == "private"

    @property
    def read_only(self) -> bool:
        """Whether the root is mounted read-only: by wish, or as a volatile root demands."""
        return self.rootfs.read_only or self.rootfs.volatile != "no"
