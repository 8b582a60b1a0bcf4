"""The client's side of a supervisor's control socket; docs/design/first-boot.md."""

from __future__ import annotations

import os
import struct

from machinectl_py.errors import ConflictError, DeniedError, UnsupportedError
from machinectl_py.layout import machine_dir
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

_PATIENCE = 5.0  # seconds for an answer
_PACKET_SIZE = 1 << 18
_INT = struct.Struct("i")


class Console(Record):
    """A machine's console, as its supervisor hands it out."""

    master: int  # of the pseudo-terminal: for its window size and for input
    output: int  # a socket with what the machine writes from now on
    last_output: bytes


def open_console(name: str) -> Console:
    """Attach to the console of a machine.

    Raises:
        ConflictError: its supervisor does not answer.
        DeniedError: only root may.
        UnsupportedError: it has no console.
    """
    import _socket

    control = _request(name, b"console")
    try:
        data, ancillary, _, _ = control.recvmsg(
            _PACKET_SIZE, _socket.CMSG_SPACE(_INT.size), _socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        control.close()
        raise _no_answer(name) from error
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            master = _INT.unpack(content[: _INT.size])[0]
            return Console(master=master, output=control.detach(), last_output=data)
    control.close()
    raise UnsupportedError(f"Machine '{name}' has no console to attach to")


def request_stop(name: str) -> None:
    """Ask the supervisor of a machine to end it in its init's orderly way.

    Raises:
        ConflictError: it does not answer.
    """
    _request(name, b"stop").close()


def hand_over_watch(name: str, fd: int) -> None:
    """Have the supervisor of a machine look after its addresses, if it does not yet.

    Args:
        name: of the machine.
        fd: a socket that tells of them; `kernel.rtnl.watch_addresses`.

    Raises:
        ConflictError: it does not answer; one without a control socket cannot.
    """
    _request(name, b"addresses", fd).close()


def _request(name: str, request: bytes, fd: int = -1) -> _socket.socket:
    import _socket

    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    control.settimeout(_PATIENCE)
    try:
        control.connect(os.fsencode(f"{machine_dir(name)}/control"))
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _INT.pack(fd))
        control.sendmsg([request], [rights] if fd >= 0 else [])
    except OSError as error:
        control.close()
        if isinstance(error, PermissionError):
            act = "see the console of" if request == b"console" else "change"
            raise DeniedError(
                f"Only root may {act} machine '{name}'", "Try again with sudo."
            ) from error
        raise _no_answer(name) from error
    return control


def _no_answer(name: str) -> ConflictError:
    return ConflictError(f"The supervisor of machine '{name}' does not answer")
