"""What was probed of this kernel and host, frozen; the planner knows the host by this alone."""

from __future__ import annotations

import os

from machinectl_py.plan.bind_users import UserFacts, probe_users
from machinectl_py.plan.host_files import HostFiles, probe_files
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.ports import ManagerKind


class HostFacts(Record):
    """The host, as far as a plan depends on it."""

    manager: ManagerKind
    register: bool  # systemd-machined can be reached, and the spec wants it
    time_namespace: bool  # Linux 5.6
    foreground: bool  # launcher and supervisor are one process: `run`
    os_release: str  # the host's
    root_device: int  # st_dev of the root directory and
    root_inode: int  # its st_ino: they name its lock
    files: HostFiles = HostFiles()
    users: UserFacts = UserFacts()


def probe_facts(
    root: str,
    *,
    manager: ManagerKind,
    register: bool,
    foreground: bool,
    bind_users: tuple[str, ...] = (),
) -> HostFacts:
    """Probe the host.

    Args:
        root: the machine's root directory.
        manager: the cgroup manager that was chosen.
        register: whether the machine will be registered with systemd-machined.
        foreground: whether one process is launcher and supervisor.
        bind_users: the users of the host that will be bound, by name.

    Raises:
        OSError: the root cannot be looked at.
    """
    etc = "/etc/os-release"
    status = os.stat(root)
    os_release = etc if os.path.exists(etc) else "/usr/lib/os-release"
    return HostFacts(
        manager=manager,
        register=register,
        time_namespace=os.path.exists("/proc/self/ns/time_for_children"),
        foreground=foreground,
        os_release=os_release,
        root_device=status.st_dev,
        root_inode=status.st_ino,
        files=probe_files(os_release),
        users=probe_users(bind_users, root) if bind_users else UserFacts(),
    )
