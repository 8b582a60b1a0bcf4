"""Links and addresses of this network namespace, by rtnetlink(7).

A few messages of fixed shape, so that a machine's start and end do not wait for pyroute2, which
needs 200 to 300 ms to be imported; the tests compare what comes of them with what that library
sees.
"""

from __future__ import annotations

import _socket
import os
import struct
import sys

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# <linux/netlink.h>
_NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x200, 0x400
_NLM_F_DUMP = 0x300
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF

# <linux/rtnetlink.h>
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK, _RTM_GETADDR = 16, 17, 18, 19, 22
_RTM_NEWLINKPROP = 108
_NAMES = {
    _RTM_NEWLINK: "RTM_NEWLINK",
    _RTM_DELLINK: "RTM_DELLINK",
    _RTM_GETLINK: "RTM_GETLINK",
    _RTM_SETLINK: "RTM_SETLINK",
    _RTM_GETADDR: "RTM_GETADDR",
    _RTM_NEWLINKPROP: "RTM_NEWLINKPROP",
}
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100

# <linux/if_link.h>
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_NET_NS_PID, _IFLA_NET_NS_FD, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 19, 28, 52, 53
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_MACVLAN_MODE, _MACVLAN_MODE_BRIDGE = 1, 4
_IFLA_IPVLAN_MODE, _IPVLAN_MODE_L2 = 1, 0

_IFA_ADDRESS, _IFA_LOCAL = 1, 2  # <linux/if_addr.h>
_IFF_UP = 1  # <linux/if.h>

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_U16, _U32, _INT = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=i")
_MOST = 1 << 16  # bytes of a packet of the kernel's


class Link(Record):
    """A link of this network namespace."""

    index: int
    name: str
    kind: str  # "veth", "bridge", …; "" of a physical one
    address: str  # of the link layer, as in "02:00:00:00:00:01"
    master: int  # index of the bridge that it is a port of, or 0


class Address(Record):
    """An address of a link."""

    link: int  # index
    family: int  # AF_INET or AF_INET6
    packed: bytes  # in network order
    scope: int  # RT_SCOPE_…: 0 universe, 253 link, 254 host
    flags: int  # IFA_F_…, the lower eight


def index_of(name: str) -> int:
    """Return the index of a link by its name or an alternative one, or 0 if there is none."""
    try:
        return _socket.if_nametoindex(name)
    except OSError:
        return 0


def get_link(index: int) -> Link | None:
    """Return a link by its index, or None if there is none."""
    try:
        answers = list(_ask(_RTM_GETLINK, _NLM_F_ACK, _ifinfo(index), f"link {index}"))
    except OSError as error:
        if error.errno == 19:  # ENODEV
            return None
        raise
    return _link(answers[0])


def links() -> tuple[Link, ...]:
    """Return all links."""
    return tuple(_link(body) for body in _ask(_RTM_GETLINK, _NLM_F_DUMP, _ifinfo(), "links"))


def addresses() -> tuple[Address, ...]:
    """Return all addresses."""
    request = _IFADDR.pack(0, 0, 0, 0, 0)
    return tuple(_address(body) for body in _ask(_RTM_GETADDR, _NLM_F_DUMP, request, "addresses"))


def add_veth(
    name: str, address: str, *, peer: str, peer_address: str, pid: int, master: int = 0
) -> int:
    """Make a pair of virtual links, both down; return the index of the one here; veth(4).

    Args:
        name: of the link here.
        address: its link-layer address; "" has the kernel choose.
        peer: the name of the other, which is in the network namespace of a process.
        peer_address: idem of the other.
        pid: the process.
        master: index of a bridge that the link here becomes a port of, and is set up then; or 0.

    Raises:
        OSError: EEXIST if there is a link of one of the names, ENODEV without the bridge.
    """
    far = _ifinfo() + _text(_IFLA_IFNAME, peer) + _hardware(peer_address)
    far += _attribute(_IFLA_NET_NS_PID, _U32.pack(pid))
    attributes = _text(_IFLA_IFNAME, name) + _hardware(address)
    attributes += _kind("veth", _attribute(_VETH_INFO_PEER, far))
    if master:
        attributes += _attribute(_IFLA_MASTER, _U32.pack(master))
    return _create(name, _ifinfo(up=bool(master)) + attributes)


def add_bridge(name: str) -> int:
    """Make a bridge and return its index.

    Raises:
        OSError: EEXIST if there is a link of that name.
    """
    return _create(name, _ifinfo() + _text(_IFLA_IFNAME, name) + _kind("bridge", b""))


def add_macvlan(name: str, address: str, *, parent: int, pid: int) -> None:
    """Make a link on another, in bridge mode, in the network namespace of a process.

    Raises:
        OSError: EEXIST if there is a link of that name there, EOPNOTSUPP if the kernel has no such
            links.
    """
    mode = _attribute(_IFLA_MACVLAN_MODE, _U32.pack(_MACVLAN_MODE_BRIDGE))
    _add_child(name, _hardware(address) + _kind("macvlan", mode), parent, pid)


def add_ipvlan(name: str, *, parent: int, pid: int) -> None:
    """Make a link on another, in L2 mode, in the network namespace of a process.

    Raises:
        OSError: as `add_macvlan`.
    """
    mode = _attribute(_IFLA_IPVLAN_MODE, _U16.pack(_IPVLAN_MODE_L2))
    _add_child(name, _kind("ipvlan", mode), parent, pid)


def _add_child(name: str, attributes: bytes, parent: int, pid: int) -> None:
    attributes += _attribute(_IFLA_LINK, _U32.pack(parent)) + _text(_IFLA_IFNAME, name)
    attributes += _attribute(_IFLA_NET_NS_PID, _U32.pack(pid))
    flags = _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
    list(_ask(_RTM_NEWLINK, flags, _ifinfo() + attributes, name))


def move_link(index: int, namespace: int, name: str) -> None:
    """Move a link to the network namespace of a descriptor, under a name.

    Raises:
        OSError: EEXIST if there is a link of that name, EINVAL for one that belongs to its
            namespace.
    """
    body = _ifinfo(index) + _attribute(_IFLA_NET_NS_FD, _U32.pack(namespace))
    list(_ask(_RTM_SETLINK, _NLM_F_ACK, body + _text(_IFLA_IFNAME, name), name))


def add_alternative_name(index: int, name: str) -> None:
    """Give a link a further name, of up to 127 characters (Linux 5.5).

    Raises:
        OSError: EEXIST if there is a link of that name.
    """
    names = _attribute(_IFLA_PROP_LIST | _NLA_F_NESTED, _text(_IFLA_ALT_IFNAME, name))
    flags = _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
    list(_ask(_RTM_NEWLINKPROP, flags, _ifinfo(index) + names, name))


def delete_link(index: int) -> None:
    """Remove a link.

    Raises:
        OSError: ENODEV if there is none.
    """
    list(_ask(_RTM_DELLINK, _NLM_F_ACK, _ifinfo(index), f"link {index}"))


def watch_addresses() -> int:
    """Return a non-blocking socket that the kernel tells of each change of an address here.

    It stays in this network namespace, wherever its owner goes.
    """
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    handle = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_ROUTE)
    handle.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return handle.detach()


def _create(name: str, body: bytes) -> int:
    list(_ask(_RTM_NEWLINK, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body, name))
    return _socket.if_nametoindex(name)


def _ifinfo(index: int = 0, *, up: bool = False) -> bytes:
    flags = _IFF_UP if up else 0
    return _IFINFO.pack(_socket.AF_UNSPEC, 0, index, flags, flags)


def _attribute(number: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, number) + value + bytes(-size % 4)


def _text(number: int, value: str) -> bytes:
    return _attribute(number, value.encode() + b"\0")


def _hardware(address: str) -> bytes:
    return _attribute(_IFLA_ADDRESS, bytes.fromhex(address.replace(":", ""))) if address else b""


def _kind(name: str, data: bytes) -> bytes:
    kind = _attribute(_IFLA_INFO_KIND, name.encode())
    return _attribute(_IFLA_LINKINFO, kind + _attribute(_IFLA_INFO_DATA, data))


def _ask(message: int, flags: int, body: bytes, subject: str) -> Iterator[bytes]:
    """Send a request and yield the bodies of the answers.

    Raises:
        OSError: the kernel refuses, with its own words where it has some.
    """
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    handle = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_ROUTE)
    try:
        handle.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        size = _HEADER.size + len(body)
        handle.send(_HEADER.pack(size, message, flags | _NLM_F_REQUEST, 1, 0) + body)
        while True:
            for answer, more, content in _messages(handle.recv(_MOST)):
                if answer == _NLMSG_ERROR:
                    _check(content, more, _NAMES[message], subject)
                    return
                if answer == _NLMSG_DONE:
                    return
                yield content
    finally:
        handle.close()


def _messages(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of each message in a packet."""
    while len(packet) >= _HEADER.size:
        size, kind, flags, _, _ = _HEADER.unpack_from(packet)
        yield kind, flags, packet[_HEADER.size : size]
        packet = packet[(size + 3) & ~3 :]


def _check(content: bytes, flags: int, call: str, subject: str) -> None:
    """Raise what a message of NLMSG_ERROR says; nothing if it acknowledges."""
    number = -_INT.unpack_from(content)[0]
    if not number:
        return
    said = ""
    if flags & _NLM_F_ACK_TLVS:
        original = _HEADER.unpack_from(content, _INT.size)[0]
        start = _INT.size + (_HEADER.size if flags & _NLM_F_CAPPED else (original + 3) & ~3)
        text = _attributes(content[start:]).get(_NLMSGERR_ATTR_MSG, b"")
        said = text.rstrip(b"\0").decode(errors="replace").rstrip(".")
    words = f"{call}: {os.strerror(number)}" + (f" ({said})" if said else "")
    raise OSError(number, words, subject)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        size, number = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            break
        found[number & _NLA_TYPE_MASK] = data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]
    return found


def _link(body: bytes) -> Link:
    index = _IFINFO.unpack_from(body)[2]
    attributes = _attributes(body[_IFINFO.size :])
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_string(attributes.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_IFLA_INFO_KIND, b"")),
        address=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        master=int.from_bytes(attributes.get(_IFLA_MASTER, b""), sys.byteorder),
    )


def _address(body: bytes) -> Address:
    family, _, flags, scope, link = _IFADDR.unpack_from(body)
    attributes = _attributes(body[_IFADDR.size :])
    # A point-to-point link's own address is IFA_LOCAL; IPv6 has IFA_ADDRESS alone.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    return Address(link=link, family=family, packed=packed, scope=scope, flags=flags)


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")
