"""Walks a plan in one process: applies the steps of its place, and talks to the other two.

Messages are JSON in packets of a SOCK_SEQPACKET socket, a descriptor beside them as SCM_RIGHTS:

    {"slot": NAME, "value": VALUE}   a step elsewhere gave it
    {"trace": [[INDEX, START, DURATION]…]}   how the steps of a place went; see `TraceEntry`
    {"failed": {…}}                  a `StepError` as data, or {"message":, "hint":}
    {"abort": 1}                     the launcher was interrupted
    {"warnings": [TEXT…]}            for the user: what was passed over
    {"ready": 1}, {"status": TEXT}   from the machine's init
    {"ended": {…}}                   the payload has ended
"""

from __future__ import annotations

import _socket
import os
import select  # early: the init wrapper may import nothing any more
import struct
import time

from machinectl_py.codec import decode, encode
from machinectl_py.errors import PymachineError, StepError
from machinectl_py.log import warn
from machinectl_py.plan.context import DESCRIPTOR_SLOTS, HANDED_OVER
from machinectl_py.runtime.state import TraceEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machinectl_py.plan.context import Context
    from machinectl_py.plan.step import Place, Plan, Step

_INT = struct.Struct("i")
_SIGKILL = 9
_PACKET = 1 << 18
# Milliseconds. A signal that came just before poll(2) began has its handler run after it alone.
LOOK_AGAIN = 500


class Peer:
    """One end of a channel to another process of ours."""

    def __init__(self, end: _socket.socket) -> None:
        """Own the socket."""
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Peer, Peer]:
        """Return both ends of a new channel, close-on-exec."""
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        one, other = (
            _socket.socket(fileno=end.detach()) for end in _socket.socketpair(_socket.AF_UNIX, kind)
        )
        return cls(one), cls(other)

    def send(self, message: dict[str, Any], fd: int = -1) -> None:
        """Send a message; nothing if the other end is gone."""
        rights: list[Any] = []
        if fd >= 0:
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _INT.pack(fd))]
        try:
            self.socket.sendmsg([encode(message).encode()], rights, _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self) -> tuple[dict[str, Any], int] | None:
        """Return the next message and its descriptor (or -1), or None at the other's end."""
        try:
            data, ancillary = self._receive()
        except ConnectionResetError:
            # The other left without reading ours; told once, before what it sent last.
            data, ancillary = self._receive()
        if not data:
            return None
        fd = _INT.unpack(ancillary[0][2][: _INT.size])[0] if ancillary else -1
        message: dict[str, Any] = decode(data.decode())
        return message, fd

    def _receive(self) -> tuple[bytes, list[Any]]:
        space = _socket.CMSG_SPACE(_INT.size)
        data, ancillary, _, _ = self.socket.recvmsg(_PACKET, space, _socket.MSG_CMSG_CLOEXEC)
        return data, ancillary

    def is_gone(self) -> bool:
        """Say whether the other end is closed, whatever it sent before."""
        poll = select.poll()
        poll.register(self.socket.fileno(), 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


class Aborted(Exception):
    """The launcher asks to give up, or is gone."""


def failure_data(error: Exception) -> dict[str, Any]:
    """Return an error as data for a channel."""
    if isinstance(error, StepError):
        return error.to_data()
    message = error.message if isinstance(error, PymachineError) else f"{error}"
    return {"message": message, "hint": getattr(error, "hint", "")}


def failure(data: dict[str, Any]) -> PymachineError:
    """Return the error that another process sent."""
    return StepError(**data) if "step" in data else PymachineError(data["message"], data["hint"])


def print_warnings(warnings: list[str]) -> None:
    """Print warnings for the user, a line each."""
    for text in warnings:
        warn(text)


class Walk:
    """A plan on its way through one process."""

    def __init__(self, plan: Plan, context: Context, places: tuple[Place, ...]) -> None:
        """Walk the steps of these places; peers are added as they are born."""
        self.plan, self.context, self.places = plan, context, places
        self.peers: dict[str, Peer] = {}
        self.trace: list[tuple[int, int, int]] = []  # index, start, duration; as in `TraceEntry`
        self.before: Callable[[Step], None] = lambda _step: None
        self.after: Callable[[Step], None] = lambda _step: None
        self.skip: Callable[[Step], bool] = lambda _step: False
        self.on_message: Callable[[str, dict[str, Any]], None] = lambda _peer, _message: None
        self._is_prepared = False
        self._fault = os.environ.get("PYMACHINE_TEST_FAIL", "")

    def run(self, start: int = 0) -> None:
        """Apply the steps of our places from the index `start` on.

        Raises:
            StepError: a step failed.
            PymachineError: what a step refused with.
            Aborted: another process wants to end it.
        """
        total = len(self.plan.steps)
        for index, step in enumerate(self.plan.steps[start:], start + 1):
            if step.place not in self.places or self.skip(step):
                continue
            for slot in step.needed_slots():
                self.wait_slot(slot)
            begun = time.monotonic_ns()
            try:
                self.before(step)
                step.apply(self.context)
                if self._fault:
                    self._fail_if_asked(step)
            except OSError as error:
                raise self._step_error(step, index, total, error) from error
            self._tell(step)
            self.after(step)
            now = time.monotonic_ns()
            self.trace.append((index, begun - self.context.clock_offset, now - begun))

    def wait_slot(self, slot: str) -> None:
        """Handle messages until a slot is filled."""
        if slot not in self.context.slots:
            self._prepare()
        while slot not in self.context.slots:
            self.turn()

    def _prepare(self) -> None:
        """Have our steps be ready for their turn, once."""
        for step in () if self._is_prepared else self.plan.steps:
            if step.place in self.places:
                step.prepare()
        self._is_prepared = True

    def turn(self) -> None:
        """Wait for messages and handle one of each peer that has any."""
        poll = select.poll()
        names = {}
        for name, peer in self.peers.items():
            poll.register(peer.socket.fileno(), select.POLLIN)
            names[peer.socket.fileno()] = name
        while not (ready := poll.poll(LOOK_AGAIN)):
            pass
        for fd, _ in ready:
            self._handle(names[fd])

    def _handle(self, name: str) -> None:
        received = self.peers[name].receive()
        if received is None:
            self.peers.pop(name).close()
            self.on_message(name, {"gone": 1})
            return
        message, fd = received
        if "slot" in message:
            self.context.give(message["slot"], fd if fd >= 0 else message["value"])
        else:
            self.on_message(name, message)

    def _tell(self, step: Step) -> None:
        for slot in step.given_slots():
            if not any(
                slot in other.needed_slots() and other.place not in self.places
                for other in self.plan.steps
            ) and (slot not in DESCRIPTOR_SLOTS):
                continue
            value = self.context.slots[slot]
            fd = value if slot in DESCRIPTOR_SLOTS and isinstance(value, int) else -1
            for name, peer in self.peers.items():
                if fd < 0 or name != "launcher":
                    peer.send({"slot": slot, "value": value}, fd)
            if fd >= 0 and slot in HANDED_OVER:
                os.close(fd)

    def trace_entry(self, index: int, start: int, duration: int) -> TraceEntry:
        """Return how a step of any place went, with what it is."""
        step = self.plan.steps[index - 1]
        return TraceEntry(
            index=index,
            name=step.label(),
            place=step.place,
            describe=step.describe(),
            start=start,
            duration=duration,
        )

    def _fail_if_asked(self, step: Step) -> None:
        """Fail after the step named by PYMACHINE_TEST_FAIL, or die, for the tests of undoing."""
        name, _, number = self._fault.partition(":")
        if name == step.label():
            if number == "kill":
                os.kill(os.getpid(), _SIGKILL)
            raise OSError(int(number or 5), "injected by PYMACHINE_TEST_FAIL")

    @staticmethod
    def _step_error(step: Step, index: int, total: int, error: OSError) -> StepError:
        act, cause = step.describe(), error.strerror or str(error)
        if error.filename and os.fsdecode(error.filename) not in act.split():
            cause = f"{cause}: {os.fsdecode(error.filename)}"
        return StepError(
            step=step.label(),
            index=index,
            total=total,
            place=step.place,
            act=act,
            cause=cause,
            errno=error.errno or 0,
        )
