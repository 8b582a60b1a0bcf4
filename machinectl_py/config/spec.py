"""The complete, frozen description of a machine to be started.

No I/O, no default left open, nothing of the host: what a `MachineSpec` says does not depend on
where it will run.
"""

from __future__ import annotations

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    PayloadKind = Literal["boot", "command", "as-pid2"]
    ConsoleMode = Literal["interactive", "read-only", "pipe", "background"]
    ManagerName = Literal["auto", "systemd", "unit", "embedded"]


class Payload(Record):
    """What PID 1 of the machine executes."""

    kind: PayloadKind = "boot"
    argv: tuple[str, ...] = ()  # "boot": arguments of the init; else the command
    working_directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    kill_signal: int = 0  # the init's signal for an orderly stop; 0: by the kind of init found


class BindMount(Record):
    """A file or directory of the host, seen inside."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True


class TmpfsMount(Record):
    """A tmpfs of the machine's own."""

    target: str
    options: str = "mode=0755"


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


class MachineSpec(Record):
    """A machine to be started."""

    name: str
    root: str  # absolute path of the root directory, no symbolic link in it
    payload: Payload
    hostname: str
    machine_id: str  # 32 hexadecimal digits
    console: ConsoleMode = "background"
    private_network: bool = False
    read_only: bool = False
    api_writable: bool = False  # /sys and /proc/sys, for machines that hold machines
    capabilities: int = 0  # the bounding set, bit per capability
    no_new_privileges: bool = False
    seccomp: SeccompSpec = SeccompSpec()
    mounts: tuple[BindMount | TmpfsMount, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()
    cgroup: CgroupSpec = CgroupSpec()
