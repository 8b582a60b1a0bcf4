"""Links, addresses and routes of this network namespace; rtnetlink(7)."""

from __future__ import annotations

import _socket
import struct

from machinectl_py.kernel import rtnetlink
from machinectl_py.kernel.rtnetlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Answer,
    attribute,
    attributes,
    nested,
    request,
)
from machinectl_py.record import Record

_EEXIST, _ENODEV = 17, 19
_NEW = NLM_F_CREATE | NLM_F_EXCL
_NETLINK_ROUTE = 0  # <linux/netlink.h>
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100  # <linux/rtnetlink.h>
_IFF_UP = 1  # <linux/if.h>

# struct ifinfomsg: family, type, index, flags, which of the flags are meant
_LINK = struct.Struct("=BxHiII")
# struct ifaddrmsg: family, length of the prefix, flags, scope, index of the link
_ADDRESS = struct.Struct("=BBBBI")
# struct rtmsg: family, both lengths of prefixes, TOS, table, protocol, scope, type, flags
_ROUTE = struct.Struct("=BBBBBBBBI")

# <linux/if_link.h>
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_NET_NS_PID, _IFLA_STATS64, _IFLA_NET_NS_FD = 19, 23, 28
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 52, 53
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER, _IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE = 1, 1, 1
_MACVLAN_MODE_BRIDGE, _IPVLAN_MODE_L2 = 4, 0
_STATS64 = struct.Struct("=8Q")  # the first of struct rtnl_link_stats64

# <linux/if_addr.h>
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD, _IFA_F_DEPRECATED = 0x02, 0x20

# <linux/rtnetlink.h>
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_RT_SCOPE_HOST = 254  # 127.0.0.1 and the like, of no use to others


class Link(Record):
    """A link of this network namespace."""

    index: int
    name: str
    kind: str  # "veth", "bridge", …; "" of a physical one
    address: str  # of the link layer, as in "02:00:00:00:00:01"
    peer: int  # index of the other end of a veth, in whichever namespace, or what it is on; or 0
    master: int  # index of the bridge that it is a port of, or 0


class Counters(Record):
    """What went over a link since it was made, as its own end counts."""

    received_bytes: int
    received_packets: int
    received_errors: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_dropped: int


class Traffic(Record):
    """A link, and what went over it."""

    index: int
    name: str
    peer: int  # index of the other end of a veth, in whichever namespace; or 0
    counters: Counters


class Address(Record):
    """An address of a link."""

    interface: int  # index of the link
    address: str
    prefix: int  # length, in bits
    scope: int  # RT_SCOPE_: 0 universe, 253 link


def index_of(name: str) -> int:
    """Return the index of a link by its name or an alternative one, or 0 if there is none."""
    try:
        return _socket.if_nametoindex(name)
    except OSError:
        return 0


def get_link(index: int) -> Link | None:
    """Return a link by its index, or None if there is none."""
    head = _LINK.pack(0, 0, index, 0, 0)
    try:
        answers = request(rtnetlink.RTM_GETLINK, head, subject=f"link {index}")
    except OSError as error:
        if error.errno == _ENODEV:
            return None
        raise
    return _link(answers[0])


def links() -> tuple[Link, ...]:
    """Return all links."""
    return tuple(map(_link, _dump_links()))


def traffic() -> tuple[Traffic, ...]:
    """Return what went over each link, by rtnl_link_stats64 of <linux/if_link.h>."""
    return tuple(map(_traffic, _dump_links()))


def addresses() -> tuple[Address, ...]:
    """Return the addresses of all links as machined lists them.

    The widest scope first, then by link; without loopback's and deprecated ones.
    """
    answers = request(
        rtnetlink.RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), flags=NLM_F_DUMP, subject="addresses"
    )
    found = []
    for answer in answers:
        _, prefix, flags, scope, index = _ADDRESS.unpack(answer.head)
        values = dict(attributes(answer.data))
        # A point-to-point interface's own address is IFA_LOCAL; IPv6 has IFA_ADDRESS alone.
        own = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS, b"")
        if scope < _RT_SCOPE_HOST and not flags & _IFA_F_DEPRECATED:
            text = _text_of(own)
            found.append(Address(interface=index, address=text, prefix=prefix, scope=scope))
    return tuple(sorted(found, key=lambda address: (address.scope, address.interface)))


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
    far = (attribute(_IFLA_IFNAME, peer), attribute(_IFLA_NET_NS_PID, pid))
    end = _LINK.pack(0, 0, 0, 0, 0) + b"".join((*far, *_hardware(peer_address)))
    near = (attribute(_IFLA_MASTER, master),) if master else ()
    parts = (*near, *_hardware(address))
    return _create(name, "veth", *parts, data=attribute(_VETH_INFO_PEER, end), up=bool(master))


def add_bridge(name: str, address: str = "") -> int:
    """Make a bridge, which is down, and return its index.

    Args:
        name: of the bridge.
        address: of the link layer; with "" it is that of one of its ports.

    Raises:
        OSError: EEXIST if there is a link of that name.
    """
    return _create(name, "bridge", *_hardware(address))


def add_ifb(name: str) -> int:
    """Make a link that shapes what another gets, set it up, and return its index.

    Raises:
        OSError: EEXIST if there is a link of that name, EOPNOTSUPP if the kernel has no such links.
    """
    return _create(name, "ifb", up=True)


def add_macvlan(name: str, address: str, *, parent: int, pid: int) -> None:
    """Make a link on another, in bridge mode, in the network namespace of a process.

    Raises:
        OSError: EEXIST if there is a link of that name there, EOPNOTSUPP if the kernel has no such
            links.
    """
    parts = (attribute(_IFLA_LINK, parent), attribute(_IFLA_NET_NS_PID, pid), *_hardware(address))
    _add(name, "macvlan", *parts, data=attribute(_IFLA_MACVLAN_MODE, _MACVLAN_MODE_BRIDGE))


def add_ipvlan(name: str, *, parent: int, pid: int) -> None:
    """Make a link on another, in L2 mode, in the network namespace of a process.

    Raises:
        OSError: as `add_macvlan`.
    """
    parts = (attribute(_IFLA_LINK, parent), attribute(_IFLA_NET_NS_PID, pid))
    mode = attribute(_IFLA_IPVLAN_MODE, struct.pack("=H", _IPVLAN_MODE_L2))
    _add(name, "ipvlan", *parts, data=mode)


def move_link(index: int, namespace: int, name: str) -> None:
    """Move a link to the network namespace of a descriptor, under a name.

    Raises:
        OSError: EEXIST if there is a link of that name, EINVAL for one that belongs to its
            namespace.
    """
    parts = (attribute(_IFLA_NET_NS_FD, namespace), attribute(_IFLA_IFNAME, name))
    request(rtnetlink.RTM_SETLINK, _LINK.pack(0, 0, index, 0, 0), *parts, subject=name)


def add_alternative_name(index: int, name: str) -> None:
    """Give a link a further name, of up to 127 characters (Linux 5.5).

    Raises:
        OSError: EEXIST if there is a link of that name.
    """
    names = nested(_IFLA_PROP_LIST, attribute(_IFLA_ALT_IFNAME, name))
    head, flags = _LINK.pack(0, 0, index, 0, 0), _NEW | NLM_F_APPEND
    request(rtnetlink.RTM_NEWLINKPROP, head, names, flags=flags, subject=name)


def delete_link(index: int) -> None:
    """Remove a link.

    Raises:
        OSError: ENODEV if there is none.
    """
    head = _LINK.pack(0, 0, index, 0, 0)
    request(rtnetlink.RTM_DELLINK, head, subject=f"link {index}")


def add_address(index: int, address: str, prefix: int) -> None:
    """Give a link an address, if it has it not yet; without looking for another who has it.

    Args:
        index: of the link.
        address: IPv4 or IPv6.
        prefix: its length in bits.

    Raises:
        OSError: ENODEV if there is no such link, EACCES if IPv6 is off on it.
    """
    family, packed = _packed(address)
    flags = _IFA_F_NODAD if family == _socket.AF_INET6 else 0
    head = _ADDRESS.pack(family, prefix, flags, 0, index)
    parts = (attribute(_IFA_LOCAL, packed), attribute(_IFA_ADDRESS, packed))
    _unless_there(rtnetlink.RTM_NEWADDR, head, *parts, subject=f"{address}/{prefix}")


def add_default_route(index: int, gateway: str, metric: int = 0) -> None:
    """Have what is for nobody near go to a router, unless there is such a route.

    Args:
        index: of the link to the router.
        gateway: the router's address.
        metric: the lower goes first; 0 is the kernel's own.

    Raises:
        OSError: ENETUNREACH if the router is not near.
    """
    family, packed = _packed(gateway)
    head = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, 0)
    parts = [attribute(_RTA_GATEWAY, packed), attribute(_RTA_OIF, index)]
    parts += [attribute(_RTA_PRIORITY, metric)] if metric else []
    _unless_there(rtnetlink.RTM_NEWROUTE, head, *parts, subject=f"default via {gateway}")


def destinations() -> tuple[str, ...]:
    """Return where the routes of all tables lead to, as in "10.0.0.0/8"; "0.0.0.0/0" by default."""
    head = _ROUTE.pack(*(0,) * 9)
    found = set()
    for answer in request(rtnetlink.RTM_GETROUTE, head, flags=NLM_F_DUMP, subject="routes"):
        family, length = answer.head[:2]
        if family in (_socket.AF_INET, _socket.AF_INET6):
            none = bytes(16 if family == _socket.AF_INET6 else 4)
            found.add(f"{_text_of(dict(attributes(answer.data)).get(_RTA_DST, none))}/{length}")
    return tuple(sorted(found))


def watch_addresses() -> int:
    """Return a non-blocking socket that can be read after each change of an address here.

    It stays in this network namespace, wherever its owner goes. What it says need not be read: the
    addresses are asked for then.
    """
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    handle = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_ROUTE)
    handle.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return handle.detach()


def _create(name: str, kind: str, *parts: bytes, data: bytes = b"", up: bool = False) -> int:
    _add(name, kind, *parts, data=data, up=up)
    return _socket.if_nametoindex(name)


def _add(name: str, kind: str, *parts: bytes, data: bytes = b"", up: bool = False) -> None:
    flags = _IFF_UP if up else 0
    info = [attribute(_IFLA_INFO_KIND, kind)]
    info += [nested(_IFLA_INFO_DATA, data)] if data else []
    what = (attribute(_IFLA_IFNAME, name), *parts, nested(_IFLA_LINKINFO, *info))
    head = _LINK.pack(0, 0, 0, flags, flags)
    request(rtnetlink.RTM_NEWLINK, head, *what, flags=_NEW, subject=name)


def _unless_there(kind: int, head: bytes, *parts: bytes, subject: str) -> None:
    try:
        request(kind, head, *parts, flags=_NEW, subject=subject)
    except OSError as error:
        if error.errno != _EEXIST:
            raise


def _hardware(address: str) -> tuple[bytes, ...]:
    packed = bytes(int(octet, 16) for octet in address.split(":")) if address else b""
    return (attribute(_IFLA_ADDRESS, packed),) if address else ()


def _packed(address: str) -> tuple[int, bytes]:
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    return family, _socket.inet_pton(family, address)


def _text_of(packed: bytes) -> str:
    family = _socket.AF_INET6 if len(packed) == 16 else _socket.AF_INET
    return _socket.inet_ntop(family, packed)


def _dump_links() -> tuple[Answer, ...]:
    head = _LINK.pack(0, 0, 0, 0, 0)
    return request(rtnetlink.RTM_GETLINK, head, flags=NLM_F_DUMP, subject="links")


def _number(data: bytes) -> int:
    number: int = struct.unpack_from("=I", data.ljust(4, b"\0"))[0]
    return number


def _name(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="surrogateescape")


def _link(answer: Answer) -> Link:
    values = dict(attributes(answer.data))
    info = dict(attributes(values.get(_IFLA_LINKINFO, b"")))
    return Link(
        index=_LINK.unpack(answer.head)[2],
        name=_name(values[_IFLA_IFNAME]),
        kind=_name(info.get(_IFLA_INFO_KIND, b"")),
        address=values.get(_IFLA_ADDRESS, b"").hex(":"),
        peer=_number(values.get(_IFLA_LINK, b"")),
        master=_number(values.get(_IFLA_MASTER, b"")),
    )


def _traffic(answer: Answer) -> Traffic:
    link = _link(answer)
    packets, sent, octets, sent_octets, errors, sent_errors, dropped, sent_dropped = (
        _STATS64.unpack_from(dict(attributes(answer.data))[_IFLA_STATS64])
    )
    counters = Counters(
        received_bytes=octets,
        received_packets=packets,
        received_errors=errors,
        received_dropped=dropped,
        sent_bytes=sent_octets,
        sent_packets=sent,
        sent_errors=sent_errors,
        sent_dropped=sent_dropped,
    )
    return Traffic(index=link.index, name=link.name, peer=link.peer, counters=counters)
