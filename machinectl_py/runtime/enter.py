"""A process of ours into a running machine: its namespaces, its cgroup, its limits.

What is needed of the host is read before; the child that enters imports nothing, reads no file of
the machine's and trusts nothing there: from setns(2) on, every path is the machine's to plant.
"""

from __future__ import annotations

import _signal
import errno
import os
import select

from machinectl_py.errors import (
    EXIT_CANNOT_EXECUTE,
    EXIT_FAILURE,
    EXIT_NOT_FOUND,
    EXIT_SIGNAL_BASE,
    ConflictError,
    DeniedError,
    PymachineError,
)
from machinectl_py.kernel import (
    capabilities,
    cgroupfs,
    const,
    namespaces,
    process,
    seccomp,
    terminal,
)
from machinectl_py.kernel import labels as kernel_labels
from machinectl_py.kernel.pipes import share_pipes
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.record import Record
from machinectl_py.runtime.signal_pipe import SignalPipe
from machinectl_py.runtime.users import find_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from machinectl_py.config.label_spec import LabelSpec
    from machinectl_py.plan.user_database import User
    from machinectl_py.runtime.relay import Relay
    from machinectl_py.runtime.state import MachineState

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Sent to us, meant for the command.
_PASSED_ON = (const.SIGHUP, const.SIGINT, const.SIGQUIT, const.SIGTERM)


class Command(Record):
    """What is to be executed inside."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()  # beside and over the clean one
    user: str = "root"  # name or uid inside
    working_directory: str = "/"


class Process(Record):
    """A command inside, our child."""

    pid: int
    pidfd: int


class _Entry(Record):
    """All that the child needs, found out before it is born."""

    pidfd: int  # of the leader
    flags: int  # of the namespaces to join, but the PID namespace
    stdio: tuple[int, int, int]
    controlling: bool
    user: User
    capabilities: int
    no_new_privileges: bool
    seccomp: tuple[bytes, ...]
    cpu_affinity: tuple[int, ...]
    persona: int
    labels: LabelSpec
    command: Command
    environment: tuple[tuple[str, str], ...]


def enter(state: MachineState, command: Command, *, on_terminal: bool) -> int:
    """Execute a command in a machine and return its exit status, 128+n for signal n.

    Args:
        state: the machine.
        command: what to execute.
        on_terminal: whether it gets a terminal of the machine's, forwarded to ours, which ^]
            three times within a second leaves; else it has our standard streams, with a pipe
            in place of a terminal.

    Raises:
        ConflictError: the machine has just ended.
        PymachineError: it cannot be executed; `exit_status` is 127 or 126, as a shell's.
    """
    require_may_enter(state)
    if on_terminal:
        return _on_terminal(state, command)
    relay = None
    if any(map(os.isatty, range(3))):
        from machinectl_py.runtime.relay import Relay

        relay = Relay()
    stdio = relay.stdio if relay else (0, 1, 2)
    share_pipes(stdio)
    with SignalPipe(_PASSED_ON) as signals:
        return wait(start(state, command, stdio), signals, relay)


def _on_terminal(state: MachineState, command: Command) -> int:
    from machinectl_py.runtime.forward import forward
    from machinectl_py.runtime.machine_terminal import on_host, open_terminal

    master, _ = open_terminal(state)
    slave = terminal.open_slave(master)
    os.fchown(slave, on_host(state, find_user(state, command.user).uid), -1)
    child = start(state, command, (slave, slave, slave), controlling=True)
    os.close(slave)
    outcome = forward(master, pidfd=child.pidfd, escape=True, at_end="insist")
    if outcome.reason == "ended":
        return exit_status(child)
    os.close(master)  # hangs up: SIGHUP for the session inside
    return EXIT_SIGNAL_BASE + (outcome.signal or const.SIGHUP)


def require_may_enter(state: MachineState) -> None:
    """Refuse who is not root.

    Raises:
        DeniedError: only root may enter.
    """
    if os.geteuid():
        raise DeniedError(f"Only root may enter machine '{state.name}'", "Try again with sudo.")


def open_leader(state: MachineState) -> int:
    """Return a pidfd of the machine's leader.

    Raises:
        ConflictError: it has ended.
        DeniedError: only root may enter.
    """
    require_may_enter(state)
    try:
        pidfd = process.pidfd_open(state.leader)
        # The PID was the leader's after the pidfd was had, so it was before.
        if start_ticks(state.leader) == state.leader_start:
            return pidfd
        os.close(pidfd)
    except (ProcessLookupError, FileNotFoundError):
        pass
    raise ConflictError(f"Machine '{state.name}' has just ended")


def start(
    state: MachineState,
    command: Command,
    stdio: tuple[int, int, int] = (0, 1, 2),
    *,
    controlling: bool = False,
) -> Process:
    """Start a command in a machine, in a session of its own, and see it executed.

    It is told by SIGHUP when this process dies.

    Args:
        state: the machine.
        command: what to execute.
        stdio: its standard input, output and error.
        controlling: whether standard input is a terminal that the session shall have.

    Raises:
        ConflictError, PymachineError: as `enter`.
    """
    if cgroupfs.is_frozen(f"{state.cgroup}/payload"):
        raise ConflictError(
            f"Machine '{state.name}' is frozen", f"'pymachine thaw {state.name}' has it go on."
        )
    entry = _prepare(state, command, stdio, controlling=controlling)
    cgroup = cgroupfs.open_dir(cgroupfs.directory_of(state.leader))
    told, tell = os.pipe2(os.O_CLOEXEC)
    process.set_dumpable(on=False)  # else who is root inside could reach through our child
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    if namespaces.namespace_id("self", "pid") != namespaces.namespace_id(state.leader, "pid"):
        namespaces.setns(entry.pidfd, const.CLONE_NEWPID)  # for children
    pid, pidfd = namespaces.clone3(0, cgroup)
    if pid == 0:
        os.close(told)
        _become(entry, tell)
    namespaces.setns(own, const.CLONE_NEWPID)  # for children again
    for fd in (tell, own, cgroup, entry.pidfd):
        os.close(fd)
    with open(told, encoding="utf-8", errors="surrogateescape") as file:
        report = file.read()
    if report:
        os.waitpid(pid, 0)
        raise _error(state, report)
    return Process(pid=pid, pidfd=pidfd)


def _prepare(
    state: MachineState, command: Command, stdio: tuple[int, int, int], *, controlling: bool
) -> _Entry:
    user = find_user(state, command.user)
    return _Entry(
        pidfd=open_leader(state),
        flags=_other_namespaces(state.leader) & ~const.CLONE_NEWPID,
        stdio=stdio,
        controlling=controlling,
        user=user,
        capabilities=state.capabilities,
        no_new_privileges=state.no_new_privileges,
        seccomp=_read_seccomp(state.seccomp) if state.seccomp else (),
        cpu_affinity=state.cpu_affinity,
        persona=state.persona,
        labels=state.labels,
        command=command,
        environment=_environment(user, state.service, command.environment, on_terminal=controlling),
    )


def _other_namespaces(leader: int) -> int:
    """Return the flags of the namespaces that the leader does not share with us.

    One that is shared must be left out: setns(2) refuses to join one's own user namespace.
    """
    flags = 0
    for name, flag in namespaces.NAMESPACE_FLAGS.items():
        try:
            if namespaces.namespace_id(leader, name) != namespaces.namespace_id("self", name):
                flags |= flag
        except FileNotFoundError:  # a kernel without this type
            continue
    return flags


def _read_seccomp(path: str) -> tuple[bytes, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return seccomp.read_programs(fd)
    finally:
        os.close(fd)


def _environment(
    user: User, service: str, added: tuple[tuple[str, str], ...], *, on_terminal: bool
) -> tuple[tuple[str, str], ...]:
    """Return what systemd-nspawn gives a command, nothing of the caller's but TERM."""
    clean = {
        "PATH": _PATH,
        "HOME": user.home,
        "USER": user.name,
        "LOGNAME": user.name,
        "SHELL": user.shell,
        "container": service,
    }
    if on_terminal:
        clean["TERM"] = os.environ.get("TERM", "dumb")
    return tuple((clean | dict(added)).items())


def _become(entry: _Entry, report: int) -> NoReturn:
    """Enter and execute, in the child; a failure goes to `report`, which execve(2) closes."""
    act = "enter"
    try:
        _take_stdio(entry)
        act = "set the labels for"
        _set_labels(entry.labels)
        act = "join the namespaces of"
        namespaces.setns(entry.pidfd, entry.flags)
        process.join_new_keyring()
        act = f"become user '{entry.user.name}' in"
        _confine(entry)
        if not _parent_lives(report):
            os._exit(EXIT_FAILURE)
        act = f"change to directory {entry.command.working_directory} in"
        os.chdir(entry.command.working_directory)
        act = f"execute {entry.command.argv[0]} in"
        _execute(entry)
    except BaseException as failure:  # noqa: BLE001 - nothing may escape into the parent's code
        number = failure.errno or 0 if isinstance(failure, OSError) else 0
        text = os.strerror(number) if number else repr(failure)
        os.write(report, f"{number}\n{act}\n{text}".encode(errors="surrogateescape"))
    os._exit(EXIT_FAILURE)


def _set_labels(labels: LabelSpec) -> None:
    """Have the command's execve(2) take the machine's labels, by the host's /proc."""
    if labels.selinux:
        kernel_labels.write_selinux_exec(kernel_labels.open_selinux_exec(), labels.selinux)
    if labels.apparmor:
        kernel_labels.write_apparmor_exec(kernel_labels.open_apparmor_exec(), labels.apparmor)


def _take_stdio(entry: _Entry) -> None:
    os.setsid()
    if entry.controlling:
        terminal.set_controlling_terminal(entry.stdio[0])
    if entry.stdio != (0, 1, 2):
        for number, fd in enumerate(entry.stdio):
            os.dup2(fd, number)
    process.close_range(3, on_exec=True)
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (None, _signal.SIG_DFL):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.umask(0o022)


def _confine(entry: _Entry) -> None:
    """Take on the machine's attributes, limits and the user.

    The filter first, as it may want CAP_SYS_ADMIN, then the bounding set, as it wants
    CAP_SETPCAP; the other sets last, as the machine may be denied CAP_SETUID.
    """
    if entry.cpu_affinity:
        os.sched_setaffinity(0, entry.cpu_affinity)
    if entry.persona >= 0:
        process.set_personality(entry.persona)
    if entry.no_new_privileges:
        process.set_no_new_privileges()
    if entry.seccomp:
        seccomp.load_filters(entry.seccomp)
    bound = capabilities.limit_bounding_set(entry.capabilities)
    os.setgroups(entry.user.groups)
    os.setresgid(entry.user.gid, entry.user.gid, entry.user.gid)
    os.setresuid(entry.user.uid, entry.user.uid, entry.user.uid)
    capabilities.set_capabilities(0 if entry.user.uid else bound)


def _parent_lives(report: int) -> bool:
    """Ask for SIGHUP at the parent's death; say whether that came too late.

    Only now, as a change of credentials takes the wish back; see PR_SET_PDEATHSIG.
    """
    process.set_parent_death_signal(const.SIGHUP)
    poll = select.poll()
    poll.register(report, 0)  # POLLERR: nobody holds the other end
    return not poll.poll(0)


def _execute(entry: _Entry) -> None:
    """Execute the command, looked for in the PATH that it will have, as execvp(3) does."""
    environment = dict(entry.environment)
    argv = entry.command.argv
    if "/" in argv[0]:
        os.execve(argv[0], argv, environment)
    denied = None
    for directory in environment.get("PATH", _PATH).split(":"):
        try:
            os.execve(f"{directory or '.'}/{argv[0]}", argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])


def _error(state: MachineState, report: str) -> PymachineError:
    number, act, text = report.split("\n", 2)
    error = PymachineError(f"Failed to {act} machine '{state.name}': {text}")
    if act.startswith("execute "):
        missing = int(number) == errno.ENOENT
        error.exit_status = EXIT_NOT_FOUND if missing else EXIT_CANNOT_EXECUTE
    return error


def wait(child: Process, signals: SignalPipe, relay: Relay | None) -> int:
    """Wait for a command without a terminal, passing signals on to its session.

    Args:
        child: the command.
        signals: those that are its, from before it was started.
        relay: what stands between it and our terminal, if that is one of our standard streams.

    Returns:
        Its exit status; 128+n for signal n.
    """
    if relay:
        relay.begin()
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    poll.register(child.pidfd, select.POLLIN)
    while True:
        ready = relay.turn(child.pidfd, signals.fd) if relay else dict(poll.poll())
        for number in signals.arrived() if signals.fd in ready else b"":
            os.killpg(child.pid, number)
        if child.pidfd in ready:
            if relay:
                relay.finish()
            return exit_status(child)


def exit_status(child: Process) -> int:
    """Reap a command and return its exit status; 128+n for signal n."""
    status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    os.close(child.pidfd)
    return status if status >= 0 else EXIT_SIGNAL_BASE - status
