"""Messages of rtnetlink(7), as far as links and addresses of machines need them.

By ourselves, as every start of a machine with a network waits for it, and pyroute2 takes 75 ms
and more to import. The tests hold that both say the same.
"""

from __future__ import annotations

import _socket
import os
import struct

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/netlink.h>
_NETLINK_ROUTE, _SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 0, 270, 10, 11
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_ACK_TLVS, NLM_F_DUMP = 0x1, 0x4, 0x200, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF

# <linux/rtnetlink.h>
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE, RTM_NEWLINKPROP = 20, 22, 24, 26, 108

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_PACKET = 1 << 18

_NAMES = {
    RTM_NEWLINK: "RTM_NEWLINK",
    RTM_DELLINK: "RTM_DELLINK",
    RTM_GETLINK: "RTM_GETLINK",
    RTM_SETLINK: "RTM_SETLINK",
    RTM_NEWADDR: "RTM_NEWADDR",
    RTM_GETADDR: "RTM_GETADDR",
    RTM_NEWROUTE: "RTM_NEWROUTE",
    RTM_GETROUTE: "RTM_GETROUTE",
    RTM_NEWLINKPROP: "RTM_NEWLINKPROP",
}


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """Return an attribute: text with a zero at its end, a number of 32 bits, or bytes."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes that follow one another, by number."""
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _NLA_TYPE_MASK, data[position + _ATTRIBUTE.size : position + size]
        position += size + -size % 4


class Answer(Record):
    """A message that answers."""

    head: bytes  # of its kind, such as struct ifinfomsg
    data: bytes  # the attributes after it


def request(
    kind: int, head: bytes, *parts: bytes, flags: int = 0, subject: str = ""
) -> tuple[Answer, ...]:
    """Ask the kernel, and return what it answers.

    Args:
        kind: of the message, RTM_.
        head: of its kind; an answer has one of the same size.
        parts: the attributes after it.
        flags: NLM_F_.
        subject: what it is about, for errors.

    Raises:
        OSError: the kernel refuses, with its own words where it has some.
    """
    body = head + b"".join(parts)
    wanted = flags | _NLM_F_REQUEST | (0 if flags & NLM_F_DUMP == NLM_F_DUMP else _NLM_F_ACK)
    message = _HEADER.pack(_HEADER.size + len(body), kind, wanted, 1, 0) + body
    own = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    found: list[Answer] = []
    kernel = _socket.socket(_socket.AF_NETLINK, own, _NETLINK_ROUTE)
    try:
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            kernel.setsockopt(_SOL_NETLINK, option, 1)
        kernel.sendto(message, (0, 0))
        while True:
            for answer, flagged, data in _messages(kernel.recv(_PACKET)):
                if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                    _check(kind, flagged, data, subject)
                    return tuple(found)
                found.append(Answer(head=data[: len(head)], data=data[len(head) :]))
    finally:
        kernel.close()


def _messages(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield kind, flags and content of the messages of a packet."""
    position = 0
    while position + _HEADER.size <= len(packet):
        size, kind, flags, _, _ = _HEADER.unpack_from(packet, position)
        yield kind, flags, packet[position + _HEADER.size : position + size]
        position += size + -size % 4


def _check(kind: int, flags: int, data: bytes, subject: str) -> None:
    """Raise what an acknowledgement tells, if it is an error."""
    number = -struct.unpack_from("=i", data)[0] if len(data) >= 4 else 0
    if not number:
        return
    said = b""
    if flags & _NLM_F_ACK_TLVS:
        # After the number, and the header of what was asked.
        said = dict(attributes(data[4 + _HEADER.size :])).get(_NLMSGERR_ATTR_MSG, b"")
    words = said.rstrip(b"\0").decode(errors="replace").rstrip(".")
    more = f" ({words})" if words else ""
    raise OSError(number, f"{_NAMES[kind]}: {os.strerror(number)}{more}", subject)
