"""D-Bus calls to systemd and systemd-machined, through pystemd's binding of sd-bus(3)."""

from __future__ import annotations

import _signal
import errno
import os
import time

from machinectl_py.errors import PymachineError
from machinectl_py.thirdparty import need_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    # (name, D-Bus signature, value), as the properties of a transient unit.
    Property = tuple[str, str, Any]
    # Pairs of a type's letter and a value, or what a container holds; -1 closes a container.
    Arguments = list[tuple[int, Any]]

_PRIVATE_SOCKET = "/run/systemd/private"
_SYSTEMD = "org.freedesktop.systemd1"
_MACHINED = "org.freedesktop.machine1"
_RESOLVED = "org.freedesktop.resolve1"
_LOST_NAMES = frozenset({"Disconnected", "NoReply"})
_LOST_ERRNOS = frozenset(
    {errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE, errno.ECONNREFUSED, errno.EINTR}
)
_CLOSE = (-1, None)


class BusError(PymachineError):
    """The other side, or the way to it, refused."""

    def __init__(self, error: Any) -> None:
        """Take the text and the name out of pystemd's exception."""
        # pystemd's exception of an interrupted call derives from OSError, which hides the number.
        self.errno: int = -error.errno if error.errno else errno.EINTR
        text = error.err_message or os.strerror(self.errno)
        super().__init__(text.decode(errors="replace") if isinstance(text, bytes) else text)
        full = error.err_name
        full = full.decode() if isinstance(full, bytes) else full or ""
        # pystemd keeps the name of errors that it does not know, and makes a class of the others.
        known = type(error).__name__.removeprefix("DBus").removesuffix("Error")
        if known == "Base":
            known = full.rpartition(".")[2] or errno.errorcode.get(self.errno, "")
        self.name: str = known

    @property
    def lost(self) -> bool:
        """Whether no answer came, as in `systemctl daemon-reexec`; the call may be done or not."""
        return self.name in _LOST_NAMES or self.errno in _LOST_ERRNOS


class Bus:
    """A connection to one service; a context manager that closes it."""

    def __init__(self, connection: Any, service: str, path: str) -> None:
        """Open the connection.

        Args:
            connection: an object of pystemd's `DBus`, not opened yet.
            service: the bus name, which begins its interfaces too.
            path: of the service's manager object.
        """
        self._lib = need_part("pystemd.dbuslib")
        self._connection = connection
        self._service = service
        self._path = path
        try:
            self._attempt_undisturbed(connection.open)
        except BusError as error:
            error.message = f"cannot connect to {service}: {os.strerror(error.errno)}"
            error.name = "Disconnected"  # as its socket is missing for a moment in daemon-reexec
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._connection.close()

    def _attempt(self, call: Any, *arguments: Any) -> Any:
        base = need_part("pystemd.dbusexc").DBusBaseError
        try:
            return call(*arguments)
        except base as error:
            raise BusError(error) from error

    def _attempt_undisturbed(self, call: Any, *arguments: Any) -> Any:
        """Have signals wait for the answer: an interrupted call leaves open whether it is done."""
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        try:
            return self._attempt(call, *arguments)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)

    def call(self, method: str, signature: str = "", *values: Any) -> Any:
        """Call a method of the manager object and return the reply's content.

        Strings come back as bytes.

        Raises:
            BusError: with the other side's own text.
        """
        arguments = self._lib.apply_signature(signature.encode(), list(values))
        return self.call_raw(method, arguments)

    def call_raw(self, method: str, arguments: Arguments) -> Any:
        """Call a method of the manager object with arguments in pystemd's own form."""
        return self._attempt_undisturbed(
            self._connection.call_method,
            self._service.encode(),
            self._path.encode(),
            f"{self._service}.Manager".encode(),
            method.encode(),
            arguments,
        ).body

    def get(self, path: str, interface: str, name: str, signature: str) -> Any:
        """Return a property of an object; `interface` without the service's name.

        Raises:
            BusError: with the other side's own text.
        """
        return self._attempt_undisturbed(
            self._connection.get_property,
            self._service.encode(),
            path.encode(),
            f"{self._service}.{interface}".encode(),
            name.encode(),
            signature.encode(),
        )

    def wait_signal(self, member: str, deadline: float) -> Any:
        """Return the content of the next signal of the manager object, or None at the deadline.

        Args:
            member: the signal's name; others are dropped.
            deadline: on time.monotonic().

        Raises:
            BusError: the connection broke.
        """
        while True:
            message = self._attempt(self._connection.process)
            if message.is_signal(f"{self._service}.Manager".encode(), member.encode()):
                self._attempt(message.process_reply, False)
                return message.body
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if message.get_type() == 0:  # no message: all that came is processed
                self._wait(left)

    def _wait(self, seconds: float) -> None:
        try:
            self._attempt(self._connection.wait, int(seconds * 1_000_000))
        except BusError as error:
            if error.errno != errno.EINTR:  # a signal of ours
                raise

    def properties(self, entries: Iterable[Property]) -> Arguments:
        """Return arguments of the type a(sv), which pystemd's own signatures cannot express."""
        arguments: Arguments = [(ord("a"), b"(sv)")]
        for name, signature, value in entries:
            kind = signature.encode()
            arguments += [(ord("r"), b"sv"), (ord("s"), name.encode()), (ord("v"), kind)]
            arguments += [*self._lib.apply_signature(kind, [value]), _CLOSE, _CLOSE]
        return [*arguments, _CLOSE]

    def unit_path(self, unit: str) -> str:
        """Return the object path of a unit."""
        path: bytes = self._lib.path_encode(f"{self._path}/unit".encode(), unit.encode())
        return path.decode()


def systemd_bus() -> Bus:
    """Connect to systemd: for root by its private socket, without the message bus between.

    Raises:
        BusError: it cannot be reached.
    """
    lib = need_part("pystemd.dbuslib")
    private = os.geteuid() == 0 and os.path.exists(_PRIVATE_SOCKET)
    address = f"unix:path={_PRIVATE_SOCKET}".encode()
    connection = lib.DBusAddress(address, True) if private else lib.DBus()
    bus = Bus(connection, _SYSTEMD, "/org/freedesktop/systemd1")
    if not private:  # without a subscriber systemd sends no signals to the message bus
        bus.call("Subscribe")
    return bus


def machined_bus() -> Bus:
    """Connect to systemd-machined by the message bus, which starts it if need be.

    Raises:
        BusError: it cannot be reached.
    """
    lib = need_part("pystemd.dbuslib")
    return Bus(lib.DBus(), _MACHINED, "/org/freedesktop/machine1")


def resolve_bus() -> Bus:
    """Connect to systemd-resolved by the message bus.

    Raises:
        BusError: it cannot be reached.
    """
    lib = need_part("pystemd.dbuslib")
    return Bus(lib.DBus(), _RESOLVED, "/org/freedesktop/resolve1")
