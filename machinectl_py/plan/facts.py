"""What was probed of this kernel and host, frozen; the planner knows the host by this alone."""

from __future__ import annotations

import os

from machinectl_py.kernel.capabilities import CAPABILITY_NAMES, own_effective_set
from machinectl_py.kernel.devices import can_make_devices, character_device
from machinectl_py.kernel.namespaces import in_user_namespace
from machinectl_py.plan.bind_users import UserFacts, probe_users
from machinectl_py.plan.disk import DiskFacts  # noqa: TC001 - read when facts are decoded
from machinectl_py.plan.host_files import HostFiles, probe_files
from machinectl_py.plan.mount_facts import MountFacts
from machinectl_py.plan.network_facts import NetworkFacts
from machinectl_py.plan.root_facts import RootFacts, image_root, probe_root
from machinectl_py.plan.security_facts import SecurityFacts, probe_security
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import UsersSpec
    from machinectl_py.plan.disk import ImageFacts
    from machinectl_py.plan.ports import ManagerKind


# As systemd-nspawn, in the order of Documentation/admin-guide/devices.txt; a machine gets those
# of them that the host has, with the host's permissions.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
_OS_KEYS = ("ID", "VERSION_ID", "BUILD_ID", "VARIANT_ID")


class DeviceNode(Record):
    """A character device of the host that machines get too."""

    name: str  # below /dev
    mode: int  # permissions
    major: int
    minor: int


class HostFacts(Record):
    """The host, as far as a plan depends on it."""

    manager: ManagerKind
    register: bool  # systemd-machined can be reached, and the spec wants it
    time_namespace: bool  # Linux 5.6
    foreground: bool  # launcher and supervisor are one process: `run`
    os_release: str  # the host's
    os_ids: tuple[tuple[str, str], ...]  # of it, as ("id", "debian")
    devices: tuple[DeviceNode, ...]
    can_make_devices: bool  # else they are shown from the host's /dev
    listen_fds: int  # descriptors that our caller passes on, from 3; sd_listen_fds(3)
    root_device: int  # st_dev of the root directory and
    root_inode: int  # its st_ino: they name its lock
    files: HostFiles = HostFiles()
    users: UserFacts = UserFacts()
    root: RootFacts = RootFacts()
    mounts: MountFacts = MountFacts()
    network: NetworkFacts = NetworkFacts()
    security: SecurityFacts = SecurityFacts()
    in_user_namespace: bool = False  # other than the initial one
    may_set_clocks: bool = True  # else those of a machine are set in a user namespace apart
    disk: DiskFacts | None = None  # the root is a disk image


def probe_facts(
    root: str,
    *,
    manager: ManagerKind,
    register: bool,
    foreground: bool,
    bind_users: tuple[str, ...] = (),
    users: UsersSpec | None = None,
    mounts: MountFacts | None = None,
    image: ImageFacts | None = None,
    network: NetworkFacts | None = None,
) -> HostFacts:
    """Probe the host.

    Args:
        root: the machine's root directory or image.
        manager: the cgroup manager that was chosen.
        register: whether the machine will be registered with systemd-machined.
        foreground: whether one process is launcher and supervisor.
        bind_users: the users of the host that will be bound, by name.
        users: the user namespace that is wished; nothing is probed for None or "no".
        mounts: what the spec's mounts find here; `mount_facts.probe_mounts`.
        image: of the image that is the root; None for a directory.
        network: what its links find here; `network_facts.probe_network`.

    Raises:
        OSError: the root cannot be looked at.
    """
    os_release = "/etc/os-release"
    if not os.path.exists(os_release):
        os_release = "/usr/lib/os-release"
    status = os.stat(root)
    tree = image.tree if image else root
    found = RootFacts()
    if users and users.mode != "no":
        found = image_root(image) if image else probe_root(root, users)
    devices = _devices()
    return HostFacts(
        manager=manager,
        register=register,
        time_namespace=os.path.exists("/proc/self/ns/time_for_children"),
        foreground=foreground,
        os_release=os_release,
        os_ids=_os_ids(os_release),
        devices=devices,
        can_make_devices=can_make_devices(os.makedev(node.major, node.minor) for node in devices),
        listen_fds=_listen_fds(),
        root_device=status.st_dev,
        root_inode=status.st_ino,
        files=probe_files(),
        users=probe_users(bind_users, tree) if bind_users else UserFacts(),
        root=found,
        mounts=mounts or MountFacts(),
        network=network or NetworkFacts(),
        security=probe_security(),
        in_user_namespace=in_user_namespace(),
        may_set_clocks=bool(own_effective_set() >> CAPABILITY_NAMES.index("CAP_SYS_TIME") & 1),
        disk=image.disk if image else None,
    )


def _devices() -> tuple[DeviceNode, ...]:
    found = []
    for name in DEVICES:
        if device := character_device(f"/dev/{name}"):
            mode, number = device
            major, minor = os.major(number), os.minor(number)
            found.append(DeviceNode(name=name, mode=mode, major=major, minor=minor))
    return tuple(found)


def _os_ids(path: str) -> tuple[tuple[str, str], ...]:
    """Return what of os-release(5) tells one system from another; () if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            pairs = [line.strip().partition("=") for line in file]
    except OSError:
        return ()
    # Of a key that stands twice, the last; shell's quotes around a value that has no escapes.
    values = {key: value.strip("\"'") for key, _, value in pairs if key in _OS_KEYS}
    return tuple((key.lower(), value) for key, value in values.items())


def _listen_fds() -> int:
    """Return how many descriptors are passed to this very process; sd_listen_fds(3)."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isascii():
        return 0
    return int(count) if count.isdigit() else 0
