"""Starts a machine in the background, under a supervisor of its own."""

from __future__ import annotations

import _signal
import os
import select
import time

from machinectl_py.errors import ConflictError, PymachineError
from machinectl_py.kernel import process
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.context import Context, held
from machinectl_py.record import Record
from machinectl_py.runtime.finish import clean_up
from machinectl_py.runtime.journal import Journal
from machinectl_py.runtime.recover import make_hooks, remove_left
from machinectl_py.runtime.state import find_running, write_plan
from machinectl_py.runtime.supervisor import Build
from machinectl_py.runtime.walk import (
    LOOK_AGAIN,
    Aborted,
    Peer,
    Walk,
    failure,
    failure_data,
    print_warnings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

_INTERRUPTING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class Started(Record):
    """A machine that runs, as its launcher learnt it."""

    leader: int
    supervisor: int
    ready_after: float  # seconds from its start to READY=1; 0.0 if that was not waited for


def prepare_walk(spec: MachineSpec, facts: HostFacts) -> Walk:
    """Return the walk of a plan to be begun; with the lock, what a killed supervisor left goes.

    Raises:
        ConfigError, UnsupportedError: there is no plan for this spec on this host.
    """
    os.umask(0o022)  # modes are meant as they are written, in the supervisor and inside too
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, there is no child to wait for
    try:
        plan = build_plan(spec, facts)
    except PymachineError:
        if spec.rootfs.transient:  # which no step has noted yet
            from machinectl_py.images.machines import remove_machine

            remove_machine(spec.name)
        raise
    context = Context(make_hooks())
    walk = Walk(plan, context, ("launcher",))
    journal = Journal(spec.name)

    def after(step: Step) -> None:
        if step.name == "lock-machine":
            remove_left(spec.name)
        if step.name == "make-state-directory":
            write_plan(spec, facts)
        if step.name == "lock-root" and not getattr(step, "shared", False):
            refuse_used(spec.root)
        journal.after(step, context)

    walk.before, walk.after = journal.before, after
    return walk


def refuse_used(root: str) -> None:
    """Refuse to write to what machines stand on: one may have been made since we looked.

    Raises:
        ConflictError: there are such machines.
    """
    from machinectl_py.images.records import users_of

    if users := users_of(root):
        names = ", ".join(machine.name for machine in users)
        raise ConflictError(
            f"{root} cannot be a machine's root, as machines stand on it: {names}",
            "'pymachine create' makes another of it; --ephemeral and --read-only work.",
        )


def _interrupt(_number: int, _frame: object) -> None:
    """Handle a signal as Ctrl-C."""
    raise KeyboardInterrupt


def undo_launcher(walk: Walk, name: str) -> None:
    """Undo what the launcher did before there was a supervisor."""
    slots = walk.context.slots
    if "lock" not in slots:
        return
    lock, root_lock = walk.context.number("lock"), slots.get("root-lock", -1)
    assert isinstance(root_lock, int)
    clean_up(name, lock, {"root-lock": root_lock, **held(slots)})


class Background:
    """`pymachine boot`: a supervisor of its own, followed until its machine is ready."""

    def __init__(self, spec: MachineSpec, facts: HostFacts, *, log: int = -1) -> None:
        """Prepare; `log` is a descriptor that gets the console's output, or -1."""
        self.spec, self.facts, self.log = spec, facts, log
        self.begun, self._pid = time.monotonic(), os.getpid()
        self.walk = prepare_walk(spec, facts)
        self.walk.context.hooks.fork_supervisor = self._fork
        self.walk.on_message = self._heard
        self.progress: Callable[[str], None] = lambda _text: None
        self.built = self.gone = False
        self.ready, self.status = 0, ""
        self.ended: dict[str, Any] | None = None

    def start(self, *, wait: bool, timeout: float) -> Started:
        """Start the machine and wait until its init is ready.

        Args:
            wait: for READY=1; otherwise only until the init has been executed.
            timeout: seconds for READY=1; 0 waits for ever.

        Raises:
            PymachineError: it could not be started; nothing is left of it.
            KeyboardInterrupt: idem.
        """
        for number in _INTERRUPTING:
            _signal.signal(number, _interrupt)
        try:
            self._start(wait, timeout)
        except BaseException:
            self._give_up()
            raise
        ready_after = max(self.ready / 1e6 - self.begun, 0.0) if self.ready else 0.0
        return Started(
            leader=self.walk.context.number("leader"),
            supervisor=self.walk.context.number("supervisor"),
            ready_after=ready_after,
        )

    def _start(self, wait: bool, timeout: float) -> None:
        self.walk.run()
        trace = [row for row in self.walk.trace if row[0] > self._forked_at()]
        if "registered" in self.walk.context.slots:  # which no step waits for, but the state shows
            self._send({"slot": "registered", "value": 1})
        self._send({"done": 1, "trace": trace})
        while not self.built:
            self._turn(None)
        deadline = time.monotonic() + timeout if timeout else None
        while wait and not self.ready:
            self._turn(deadline)
            if self.ended is not None:
                raise self._ended_early()

    def _forked_at(self) -> int:
        names = [step.name for step in self.walk.plan.steps]
        return names.index("start-supervisor")

    def _turn(self, deadline: float | None) -> None:
        """Wait for one message."""
        peer = self.walk.peers.get("supervisor")
        if peer is None:
            raise PymachineError(f"The supervisor of machine '{self.spec.name}' was killed")
        if deadline is not None:
            poll = select.poll()
            poll.register(peer.socket.fileno(), select.POLLIN)
            while (left := deadline - time.monotonic()) > 0:
                if poll.poll(min(left * 1000, LOOK_AGAIN)):
                    break
            else:
                said = f" It said last: {self.status}" if self.status else ""
                raise PymachineError(
                    f"Machine '{self.spec.name}' did not become ready in time, and was ended",
                    f"--timeout= gives it more, --no-wait does not wait.{said}",
                )
        self.walk.turn()

    def _heard(self, _peer: str, message: dict[str, Any]) -> None:
        if "failed" in message:
            raise failure(message["failed"])
        print_warnings(message.get("warnings", []))
        if message.get("built"):
            self.built = True
            self.walk.context.give("leader", message["built"])
        if message.get("ready"):
            self.ready = message["ready"]
        if message.get("status"):
            self.status = "".join(c for c in message["status"] if c.isprintable())
            self.progress(message["status"])
        if "ended" in message:
            self.ended = message["ended"]
        if "gone" in message:
            self.gone = True
            if not self.built:
                raise PymachineError(f"The supervisor of machine '{self.spec.name}' was killed")

    def _ended_early(self) -> PymachineError:
        assert self.ended is not None
        self._wait_gone()
        name, status = self.spec.name, self.ended["status"]
        if os.WIFSIGNALED(status):
            how = f"by signal {os.WTERMSIG(status)}"
        else:
            how = f"with exit status {os.WEXITSTATUS(status)}"
        lines = [line.strip() for line in self.ended["output"].splitlines() if line.strip()]
        printable = "".join(c for c in lines[-1] if c.isprintable()) if lines else ""
        return PymachineError(
            f"The init of machine '{name}' ended {how} before it was ready",
            f"The last line on its console: {printable}" if printable else "",
        )

    def _send(self, message: dict[str, Any]) -> None:
        if "supervisor" in self.walk.peers:
            self.walk.peers["supervisor"].send(message)

    def _wait_gone(self) -> None:
        self.walk.on_message = lambda _peer, _message: None
        while "supervisor" in self.walk.peers:
            self.walk.turn()

    def _give_up(self) -> None:
        """Have the supervisor undo everything, or do it where there is none."""
        for number in _INTERRUPTING:
            _signal.signal(number, _signal.SIG_IGN)
        if "supervisor" in self.walk.context.slots:
            self._send({"abort": 1})
            self._wait_gone()
            os.close(self.walk.context.number("lock"))
            if "root-lock" in self.walk.context.slots:
                os.close(self.walk.context.number("root-lock"))
            find_running(self.spec.name)  # in case the supervisor was killed
        else:
            undo_launcher(self.walk, self.spec.name)

    def _fork(self) -> int:
        """Fork the supervisor; only the launcher returns."""
        ours, theirs = Peer.pair()
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _INTERRUPTING)
        # The process that MAINPID= names must be systemd's own child: what is not gets SIGKILL
        # where it should be waited for after SIGTERM.
        pid = process.fork_orphan() if self.facts.manager == "unit" else os.fork()
        if pid == 0:
            ours.close()
            self._supervise(theirs)
        theirs.close()
        # The supervisor's alone from now on, which waits for their end when it undoes.
        for slot, fd in held(self.walk.context.slots).items():
            os.close(fd)
            del self.walk.context.slots[slot]
        self.walk.peers["supervisor"] = ours
        # Filled here, so that an interruption from now on finds whom to tell.
        self.walk.context.give("supervisor", pid)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _INTERRUPTING)
        return pid

    def _supervise(self, launcher: Peer) -> None:
        """Be the supervisor: build, then watch."""
        os.setsid()
        if os.environ.get("WATCHDOG_PID") == str(self._pid):  # its service manager's is for us now
            os.environ["WATCHDOG_PID"] = str(os.getpid())
        for number in _INTERRUPTING:
            _signal.signal(number, _signal.SIG_IGN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _INTERRUPTING)
        self._silence()
        walk = self.walk
        walk.places = ("supervisor",)
        walk.peers = {"launcher": launcher}
        walk.context.give("supervisor", os.getpid())
        build = Build(walk, self.spec, self.facts)
        error: Exception
        try:
            start = self._forked_at() + 1
            build.run(start)
            launcher.send({"built": walk.context.number("leader")})
            from machinectl_py.runtime import detach

            detach.watch(build, log=self.log)
        except Exception as caught:  # noqa: BLE001 - told by the launcher, we have no terminal
            error = caught
        self._fail(build, launcher, error)

    def _fail(self, build: Build, launcher: Peer, error: Exception) -> None:
        """Tell the error, and undo everything once the launcher is at no step any more."""
        if not isinstance(error, Aborted):
            if not isinstance(error, (PymachineError, OSError)):
                error = PymachineError(f"Internal error: {type(error).__name__}: {error}")
            launcher.send({"failed": failure_data(error)})
            while (received := launcher.receive()) and "abort" not in received[0]:
                pass
        try:
            build.kill()
            undo_launcher(self.walk, self.spec.name)
        except Exception:  # noqa: BLE001 - the launcher tries again, and tells it
            os._exit(1)
        os._exit(0)

    def _silence(self) -> None:
        """Let go of the caller's terminal."""
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            if number != self.log:
                os.dup2(null, number)
        os.close(null)
        os.chdir("/")
