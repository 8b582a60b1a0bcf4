"""What is known of the machines that run: /run/pymachine/machines/NAME/ and its lock.

The supervisor holds the lock of its machine for life, by an open file description: the lock is
taken if and only if a supervisor lives, whatever became of the process that started it. So a
machine whose lock can be had is a leftover, and whoever finds it undoes its journal, with the
lock from its second byte on: that keeps a start waiting, but nobody takes it for a supervisor's.

Files in the directory, each written whole and renamed:

    spec.json     the `MachineSpec`, as planned; for root alone, as it holds credentials
    state.json    the `MachineState`
    trace.json    the `TraceEntry` list: each step with its duration
    notify        the latest STATUS= of the machine's init, and READY's time
    journal       the acts on the host that are not undone yet, a line each
    control       the supervisor's socket: console and requests
"""

from __future__ import annotations

import os

from machinectl_py.codec import decode, encode
from machinectl_py.config.label_spec import LabelSpec
from machinectl_py.errors import ConflictError, NotFoundError, PymachineError
from machinectl_py.kernel.locks import is_locked
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.layout import LOCK_DIR, MACHINES_DIR, SERVICE, lock_path, machine_dir
from machinectl_py.log import warn
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts

    MachinePhase = Literal["opening", "running", "closing"]


class MachineState(Record):
    """A machine that runs, or is being started or stopped."""

    name: str
    leader: int  # PID 1 of the machine, as the host numbers it; 0 before it is born
    leader_start: int  # its start in clock ticks since boot, so that a used-again PID is seen
    supervisor: int
    phase: MachinePhase
    root: str
    machine_id: str
    kind: str  # Payload.kind
    manager: str  # the cgroup manager: "systemd", "unit", "embedded"
    unit: str  # the scope or service; "" with the embedded manager
    cgroup: str  # absolute path of the machine's cgroup, above `supervisor` and `payload`
    registered: bool  # with systemd-machined
    private_network: bool
    capabilities: int  # the bounding set inside
    no_new_privileges: bool
    seccomp: str  # file of the compiled filter; "" if there is none
    started: int  # CLOCK_REALTIME of the start, in microseconds
    started_monotonic: int  # CLOCK_MONOTONIC of the start, in microseconds
    clock_offset: int  # what the machine's CLOCK_MONOTONIC adds to the host's, in nanoseconds
    image: str = ""  # what the machine was made from; "" in place
    driver: str = ""  # how: "overlay", "btrfs", "reflink"; "" in place
    service: str = SERVICE  # the manager, as systemd-machined and the payload are told
    network_interfaces: tuple[int, ...] = ()  # the host's link that leads to the machine
    uid_base: int = 0  # the host's id of 0 inside
    uid_count: int = 0  # how many ids there are inside; 0 without a user namespace
    boots: int = 1  # how often its init has been started since `boot`
    cpu_affinity: tuple[int, ...] = ()  # (): all
    persona: int = -1  # of personality(2); -1: as the host's
    labels: LabelSpec = LabelSpec()  # of the processes


class NotifyState(Record):
    """What the machine's init has told by sd_notify(3)."""

    status: str = ""
    ready: int = 0  # CLOCK_MONOTONIC of READY=1, in microseconds; 0 before


class TraceEntry(Record):
    """How a step went."""

    index: int  # from 1
    name: str
    place: str
    describe: str
    start: int  # CLOCK_MONOTONIC of the host, in nanoseconds
    duration: int  # nanoseconds
    standing: bool = False  # since an earlier boot of the machine, and not done anew


def write_whole(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file aside and rename it into place, so that no reader sees half of it.

    Raises:
        OSError: with the path.
    """
    aside = f"{path}.{os.getpid()}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.rename(aside, path)


def read_text(path: str) -> str:
    """Return a file's text.

    Raises:
        OSError: with the path.
    """
    with open(path, encoding="utf-8") as file:
        return file.read()


def write_state(state: MachineState) -> None:
    """Write state.json of the machine."""
    write_whole(f"{machine_dir(state.name)}/state.json", encode(state.to_data()))


def read_state(name: str) -> MachineState:
    """Return the state of a machine, running or left over.

    Raises:
        FileNotFoundError: there is none.
    """
    return MachineState.from_data(decode(read_text(f"{machine_dir(name)}/state.json")))


def read_spec(state: MachineState) -> MachineSpec:
    """Return the spec of a machine; root alone may, as it holds credentials.

    Raises:
        DeniedError: the caller is not root.
    """
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.errors import DeniedError

    try:
        text = read_text(f"{machine_dir(state.name)}/spec.json")
    except PermissionError as error:
        raise DeniedError(
            f"Only root may see the settings of machine '{state.name}'", "Try again with sudo."
        ) from error
    return MachineSpec.from_data(decode(text))


def read_facts(name: str) -> HostFacts:
    """Return the facts that a machine was planned with; for root alone."""
    from machinectl_py.plan.facts import HostFacts

    return HostFacts.from_data(decode(read_text(f"{machine_dir(name)}/facts.json")))


def write_plan(spec: MachineSpec, facts: HostFacts) -> None:
    """Write what a machine is planned from, when it starts and at each reboot.

    It holds credentials, and passwords of bound users.
    """
    directory = machine_dir(spec.name)
    write_whole(f"{directory}/spec.json", encode(spec.to_data()), 0o600)
    write_whole(f"{directory}/facts.json", encode(facts.to_data()), 0o600)


def read_notify(name: str) -> NotifyState:
    """Return what the machine's init has told so far."""
    try:
        return NotifyState.from_data(decode(read_text(f"{machine_dir(name)}/notify")))
    except FileNotFoundError:
        return NotifyState()


def read_trace(name: str) -> tuple[TraceEntry, ...]:
    """Return the trace of a machine's last start; empty before it is written."""
    try:
        data = decode(read_text(f"{machine_dir(name)}/trace.json"))
    except FileNotFoundError:
        return ()
    return tuple(TraceEntry.from_data(entry) for entry in data)


def machine_names() -> tuple[str, ...]:
    """Return the names of the machines that have a state directory or a lock, sorted.

    Some may be stale.
    """
    names: set[str] = set()
    for directory in (MACHINES_DIR, LOCK_DIR):
        try:
            names.update(os.listdir(directory))
        except FileNotFoundError:
            continue
    return tuple(sorted(names))


def leader_alive(state: MachineState) -> bool:
    """Say whether the leader lives and is the process that we started."""
    try:
        return state.leader > 0 and start_ticks(state.leader) == state.leader_start
    except OSError:
        return False


def running_machines() -> tuple[MachineState, ...]:
    """Return the machines that run, by name; what a killed supervisor left is removed first.

    Needs no root to read; only root removes. What cannot be removed is told, and no obstacle.
    """
    found = []
    for name in machine_names():
        try:
            state = find_running(name)
        except PymachineError as error:  # what one has left shall not hide the others
            warn(error.message)
            continue
        if state is not None:
            found.append(state)
    return tuple(found)


def is_supervised(name: str) -> bool:
    """Say whether a process of ours holds the machine's lock.

    Who may not look at the lock goes by the leader.
    """
    try:
        return is_locked(lock_path(name))
    except PermissionError:
        try:
            return leader_alive(read_state(name))
        except FileNotFoundError:
            return False


def find_running(name: str) -> MachineState | None:
    """Return the machine's state if it runs; remove what it left if it no longer does."""
    if not is_supervised(name):
        # Its lock alone is left of one that was killed first of all, or last.
        left = os.path.isdir(machine_dir(name)) or os.path.exists(lock_path(name))
        if left and os.geteuid() == 0:
            from machinectl_py.runtime.recover import recover

            recover(name)
        return None
    try:
        return read_state(name)
    except FileNotFoundError:  # between its lock and its first state
        return None


def require_running(name: str) -> MachineState:
    """Return the state of a running machine whose leader has been born.

    Raises:
        NotFoundError: no machine of that name runs.
        ConflictError: it is still being started, or on its way out.
    """
    state = find_running(name)
    if state is None:
        if is_supervised(name):
            raise ConflictError(f"Machine '{name}' is still being started")
        raise NotFoundError(
            f"No machine '{name}' is running", "'pymachine list' shows those that are."
        )
    if not leader_alive(state):
        raise ConflictError(f"Machine '{name}' is being stopped or restarted")
    return state
