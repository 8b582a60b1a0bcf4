"""A machine in the foreground: launcher and supervisor in one process, to the machine's end."""

from __future__ import annotations

import _signal
import os

from machinectl_py.errors import EXIT_FAILURE, EXIT_REBOOT, EXIT_SIGNAL_BASE, ConflictError
from machinectl_py.kernel import const
from machinectl_py.kernel.pipes import share_pipes
from machinectl_py.kernel.process import pidfd_open, pidfd_send_signal
from machinectl_py.layout import SOURCE, machine_dir
from machinectl_py.plan.context import held
from machinectl_py.record import Record
from machinectl_py.runtime.launcher import prepare_walk, undo_launcher
from machinectl_py.runtime.supervisor import Build
from machinectl_py.runtime.walk import Aborted
from machinectl_py.runtime.watch import Watch, tell_service_manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts

    # What SIGTERM and SIGINT to us mean: passed on to a command, which decides; or to stop the
    # machine by its kill signal, the second time or without such a signal at once.
    SignalPolicy = Literal["pass", "stop"]

_SIGNALS = (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGINT)
# What an init does by these; systemd(1), "Signals".
_HOT_KEYS = {"p": const.SIGRTMIN + 4, "r": const.SIGRTMIN + 5}


class Ending(Record):
    """How a machine came to its end."""

    status: int = 0  # exit status of the payload; 0 if the machine was powered off
    signal: int = 0  # by which the payload ended, if not by the kernel's power-off or reboot
    asked: int = 0  # the signal upon which we killed it; SIGHUP for ^] three times
    rebooting: bool = False  # it wants to be started again

    @property
    def exit_status(self) -> int:
        """Return the exit status of a shell's command, 128+n for signal n."""
        if self.rebooting:
            return EXIT_REBOOT
        if self.asked and self.signal == const.SIGKILL:
            return EXIT_SIGNAL_BASE + self.asked
        return EXIT_SIGNAL_BASE + self.signal if self.signal else self.status

    @property
    def nspawn_exit_status(self) -> int:
        """Return the exit status of systemd-nspawn, for which any signal is a failure."""
        if self.rebooting:
            return EXIT_REBOOT
        # 133 asks the unit to restart us, which is not the payload's to ask.
        failed = self.signal or self.status == EXIT_REBOOT
        return EXIT_FAILURE if failed else self.status


def run_foreground(spec: MachineSpec, facts: HostFacts) -> int:
    """Run a command in the foreground and return its exit status (128+n for signal n).

    Raises:
        PymachineError: it could not be started; nothing is left of it.
    """
    return follow_foreground(spec, facts, signals="pass").exit_status


def follow_foreground(
    spec: MachineSpec,
    facts: HostFacts,
    *,
    signals: SignalPolicy,
    title: str = "",
    leave_reboot: bool = False,
) -> Ending:
    """Start a machine and stay with it to its end; one that reboots is started again.

    With the console "interactive" and "read-only" its output is ours, and with "interactive" our
    input its; "passive" leaves the console to `pymachine console`; with "pipe" the payload has
    our own standard streams. In a unit (the cgroup manager "unit") a reboot is left to the
    unit: `Ending.rebooting`.

    Args:
        spec: of the machine.
        facts: of this host, with `foreground`.
        signals: what SIGTERM and SIGINT mean.
        title: of the terminal's window meanwhile; "" leaves it.
        leave_reboot: whether a reboot is left to our caller, as that of a unit is.

    Raises:
        PymachineError: it could not be started, or not again; nothing is left of it.
    """
    if spec.console == "pipe":
        share_pipes((0, 1, 2))
    walk = prepare_walk(spec, facts)
    walk.places = ("launcher", "supervisor")
    build = Build(walk, spec, facts)
    early = _Early(build)
    try:
        try:
            build.run()
            while (ending := _follow(build, signals, title, early)).rebooting:
                if leave_reboot or facts.manager == "unit":
                    break
                build, early = _again(build)
        except Aborted as error:
            raise ConflictError("Interrupted") from error
    except BaseException:
        _ignore_signals()
        build.kill()
        undo_launcher(walk, spec.name)
        raise
    _ignore_signals()
    doing = "Restarting" if ending.rebooting else "Terminating"
    tell_service_manager(f"STOPPING=1\nSTATUS={doing}...")
    undo_launcher(walk, spec.name)
    return ending


class _Early:
    """What signals do until somebody watches: they end the start, or wait once the payload runs."""

    def __init__(self, build: Build) -> None:
        """Take the signals over."""
        self._build = build
        self.arrived: list[int] = []
        for number in _SIGNALS:
            _signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if not self._build.executed:
            raise KeyboardInterrupt
        self.arrived.append(number)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        _signal.signal(number, _signal.SIG_IGN)


def _follow(build: Build, policy: SignalPolicy, title: str, early: _Early) -> Ending:
    """Stay with a machine that has been built until its leader has ended."""
    leader = build.context.number("leader")
    tell_service_manager(f"STATUS=Container running.\nX_NSPAWN_LEADER_PID={leader}")
    if not build.spec.payload.notify_ready:
        tell_service_manager("READY=1\n")
    forwarded = build.spec.console in ("interactive", "read-only")
    watch = _ForegroundWatch(build, policy, console=not forwarded)
    for number in early.arrived:
        if not watch.signalled(number):
            watch.end(number)
    if forwarded:
        _forward(build, watch, title)
        status = os.waitpid(leader, 0)[1]
    else:
        status = watch.run()
    _close(build, watch)
    if os.WIFEXITED(status):
        return Ending(status=os.WEXITSTATUS(status), asked=watch.asked)
    number = os.WTERMSIG(status)
    # How the kernel tells of reboot(2) in a PID namespace: no other SIGHUP or SIGINT ends PID 1.
    if number == const.SIGHUP:
        return Ending(rebooting=True)
    return Ending(signal=0 if number == const.SIGINT else number, asked=watch.asked)


def _forward(build: Build, watch: _ForegroundWatch, title: str) -> None:
    """Be the machine's terminal; end the machine if that ends first."""
    from machinectl_py.kernel.terminal import open_slave
    from machinectl_py.runtime.forward import forward
    from machinectl_py.runtime.tint import Tint, takes_color

    master = build.context.number("console")
    # With a slave of ours open the master is never hung up, whatever the machine closes.
    slave = open_slave(master)
    outcome = forward(
        master,
        pidfd=watch.pidfd,
        escape=True,
        input_fd=0 if build.spec.console == "interactive" else -1,
        beside=watch,
        tint=Tint(build.spec.background, title) if takes_color(1) else None,
    )
    os.close(slave)
    if outcome.reason != "ended":
        watch.end(outcome.signal or const.SIGHUP)


class _ForegroundWatch(Watch):
    """Watches a machine in the foreground; to `forward` it is what it waits for besides."""

    def __init__(self, build: Build, policy: SignalPolicy, *, console: bool) -> None:
        """Watch; the console too, if nobody forwards it."""
        slots = build.context.slots
        master = build.context.number("console") if console and "console" in slots else -1
        if master >= 0:
            os.set_blocking(master, False)
        settings = {
            "notify": slots["notify"],
            "control": slots.get("control", -1),
            "leader-pidfd": slots["leader-pidfd"],
            "leader": slots["leader"],
            "console": master,
            "log": -1,
            "launcher": -1,
            "addresses": slots.get("addresses", -1),
            "name": build.spec.name,
            "directory": machine_dir(build.spec.name),
            "path": SOURCE,
            "kill-signal": build.spec.payload.kill_signal,
            "caller": 1,
        }
        super().__init__(settings)
        self._policy, self._kind = policy, build.spec.payload.kind
        self._interactive = build.spec.console == "interactive"
        self.asked = 0
        self.letters = "".join(_HOT_KEYS).encode() if self._kind == "boot" else b""

    def end(self, number: int) -> None:
        """Kill the machine at once, as this signal to us asks."""
        self.asked = number
        self.kill(_signal.SIGKILL)

    def pressed(self, letter: str) -> None:
        """Have the init power off or reboot."""
        self.kill(_HOT_KEYS[letter])

    def signalled(self, number: int) -> bool:
        """Do what a signal to us asks; say whether that was ours to do."""
        if number == _signal.SIGURG:  # the control socket's "stop"
            self.kill(self.settings["kill-signal"] or _signal.SIGKILL)
        elif number not in _SIGNALS:
            return False
        elif self._policy == "pass":
            return self._pass_on(number)
        elif number != _signal.SIGHUP and self.settings["kill-signal"] and not self.terms:
            self.terms += 1
            self.kill(self.settings["kill-signal"])
        else:
            self.end(number)
        return True

    def _pass_on(self, number: int) -> bool:
        """Pass a signal on to the command; a terminal's is left to the forwarding."""
        if self._interactive:
            return False
        command = _command_of(self.leader) if self._kind == "as-pid2" else -1
        if command >= 0:
            try:
                pidfd_send_signal(command, number)
            except ProcessLookupError:  # it has just ended, and the stub is about to
                pass
            os.close(command)
        # PID 1 gets no signal that it has no handler for; pid_namespaces(7). Then it is killed,
        # as the one who sent the signal wants an end.
        elif _catches(self.leader, number):
            self.kill(number)
        else:
            self.end(number)
        return True


def _command_of(stub: int) -> int:
    """Return a pidfd of PID 2, the child of this stub init; -1 if it has ended."""
    with open(f"/proc/{stub}/task/{stub}/children", encoding="utf-8") as file:
        children = [int(word) for word in file.read().split()]
    for pid in children:
        try:
            pidfd = pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                inside = [line.split()[-1] for line in file if line.startswith("NSpid:")]
        except (FileNotFoundError, ProcessLookupError):
            inside = []
        if inside == ["2"]:
            return pidfd
        os.close(pidfd)
    return -1


def _catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal; SigCgt of proc_pid_status(5)."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _close(build: Build, watch: _ForegroundWatch) -> None:
    """Close what belonged to this boot of the machine."""
    watch.close()
    for slot in ("console", "kmsg", "leader-pidfd"):
        fd = build.context.slots.pop(slot, -1)
        if isinstance(fd, int) and fd >= 0:
            os.close(fd)


def _again(build: Build) -> tuple[Build, _Early]:
    """Build the machine once more, in this process.

    Raises:
        PymachineError: it could not be started again.
    """
    from machinectl_py.runtime.again import build_again, prepare_again
    from machinectl_py.runtime.changes import Changes
    from machinectl_py.runtime.state import read_facts, read_spec, read_state

    context = build.context
    kept = {slot: context.number(slot) for slot in ("lock", "root-lock") if slot in context.slots}
    name = build.spec.name
    # Ports and networks may have been added meanwhile.
    with Changes(name):
        spec, facts = read_spec(read_state(name)), read_facts(name)
        made = prepare_again(spec, facts, kept | held(context.slots))
    early = _Early(made)
    try:
        build_again(made)
    except BaseException:
        made.kill()
        raise
    return made, early
