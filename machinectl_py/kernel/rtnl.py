"""Links of this network namespace, by rtnetlink(7), which pyroute2 speaks.

The library is imported by the first call that needs it, without the parts of it that we do not
use: in about 75 ms instead of 150.
"""

from __future__ import annotations

import _socket
import os

from machinectl_py.record import Record
from machinectl_py.thirdparty import need_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_EEXIST, _ENODEV = 17, 19
_IFA_F_NODAD = 0x02  # <linux/if_addr.h>
_NETLINK_ROUTE = 0  # <linux/netlink.h>
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100  # <linux/rtnetlink.h>
_MACVLAN_MODE_BRIDGE, _IPVLAN_MODE_L2 = 4, 0  # <linux/if_link.h>


def preload() -> None:
    """Import the library already."""
    for part in ("pyroute2.iproute.linux", "pyroute2.netlink.exceptions"):
        need_part(part)


class Link(Record):
    """A link of this network namespace."""

    index: int
    name: str
    kind: str  # "veth", "bridge", …; "" of a physical one
    address: str  # of the link layer, as in "02:00:00:00:00:01"
    master: int  # index of the bridge that it is a port of, or 0


class Traffic(Record):
    """What went over a link since it was made, as its own end counts."""

    index: int
    name: str
    peer: int  # index of the other end of a veth, in whichever namespace; or 0
    received_bytes: int
    received_packets: int
    received_errors: int
    received_dropped: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_dropped: int


def traffic() -> tuple[Traffic, ...]:
    """Return what went over each link, by rtnl_link_stats64 of <linux/if_link.h>."""
    return tuple(map(_traffic, ask("RTM_GETLINK", "links", lambda route: route.link("dump"))))


def index_of(name: str) -> int:
    """Return the index of a link by its name or an alternative one, or 0 if there is none."""
    try:
        return _socket.if_nametoindex(name)
    except OSError:
        return 0


def get_link(index: int) -> Link | None:
    """Return a link by its index, or None if there is none."""
    try:
        answers = ask("RTM_GETLINK", f"link {index}", lambda route: route.link("get", index=index))
    except OSError as error:
        if error.errno == _ENODEV:
            return None
        raise
    return _link(answers[0])


def links() -> tuple[Link, ...]:
    """Return all links."""
    return tuple(map(_link, ask("RTM_GETLINK", "links", lambda route: route.link("dump"))))


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
    far = {"ifname": peer, "net_ns_pid": pid, **_hardware(peer_address)}
    near = {"master": master, "state": "up"} if master else {}
    return _create(name, kind="veth", peer=far, **near, **_hardware(address))


def add_bridge(name: str, address: str = "") -> int:
    """Make a bridge, which is down, and return its index.

    Args:
        name: of the bridge.
        address: of the link layer; with "" it is that of one of its ports.

    Raises:
        OSError: EEXIST if there is a link of that name.
    """
    return _create(name, kind="bridge", **_hardware(address))


def add_address(index: int, address: str, prefix: int) -> None:
    """Give a link an address, if it has it not yet; without looking for another who has it.

    Args:
        index: of the link.
        address: IPv4 or IPv6.
        prefix: its length in bits.

    Raises:
        OSError: ENODEV if there is no such link, EACCES if IPv6 is off on it.
    """
    more = {"flags": _IFA_F_NODAD} if ":" in address else {}
    _unless_there(
        "RTM_NEWADDR",
        f"{address}/{prefix}",
        lambda route: route.addr("add", index=index, address=address, prefixlen=prefix, **more),
    )


def add_default_route(index: int, gateway: str) -> None:
    """Have what is for nobody near go to a router, unless there is such a route.

    Raises:
        OSError: ENETUNREACH if the router is not near.
    """
    family = _socket.AF_INET6 if ":" in gateway else _socket.AF_INET
    _unless_there(
        "RTM_NEWROUTE",
        f"default via {gateway}",
        lambda route: route.route("add", dst="default", gateway=gateway, oif=index, family=family),
    )


def destinations() -> tuple[str, ...]:
    """Return where the routes of all tables lead to, as in "10.0.0.0/8"; "0.0.0.0/0" by default."""
    found = set()
    for message in ask("RTM_GETROUTE", "routes", lambda route: route.get_routes()):
        default = "::" if message["family"] == _socket.AF_INET6 else "0.0.0.0"  # noqa: S104
        found.add(f"{message.get_attr('RTA_DST') or default}/{message['dst_len']}")
    return tuple(sorted(found))


def _unless_there(call: str, subject: str, request: Callable[[Any], Any]) -> None:
    try:
        ask(call, subject, request)
    except OSError as error:
        if error.errno != _EEXIST:
            raise


def add_ifb(name: str) -> int:
    """Make a link that shapes what another gets, set it up, and return its index.

    Raises:
        OSError: EEXIST if there is a link of that name, EOPNOTSUPP if the kernel has no such links.
    """
    return _create(name, kind="ifb", state="up")


def add_macvlan(name: str, address: str, *, parent: int, pid: int) -> None:
    """Make a link on another, in bridge mode, in the network namespace of a process.

    Raises:
        OSError: EEXIST if there is a link of that name there, EOPNOTSUPP if the kernel has no such
            links.
    """
    more = {"macvlan_mode": _MACVLAN_MODE_BRIDGE, **_hardware(address)}
    _add(name, kind="macvlan", link=parent, net_ns_pid=pid, **more)


def add_ipvlan(name: str, *, parent: int, pid: int) -> None:
    """Make a link on another, in L2 mode, in the network namespace of a process.

    Raises:
        OSError: as `add_macvlan`.
    """
    _add(name, kind="ipvlan", link=parent, net_ns_pid=pid, ipvlan_mode=_IPVLAN_MODE_L2)


def move_link(index: int, namespace: int, name: str) -> None:
    """Move a link to the network namespace of a descriptor, under a name.

    Raises:
        OSError: EEXIST if there is a link of that name, EINVAL for one that belongs to its
            namespace.
    """
    ask(
        "RTM_SETLINK",
        name,
        lambda route: route.link("set", index=index, net_ns_fd=namespace, ifname=name),
    )


def add_alternative_name(index: int, name: str) -> None:
    """Give a link a further name, of up to 127 characters (Linux 5.5).

    Raises:
        OSError: EEXIST if there is a link of that name.
    """
    ask(
        "RTM_NEWLINKPROP",
        name,
        lambda route: route.link("property_add", index=index, altname=name),
    )


def delete_link(index: int) -> None:
    """Remove a link.

    Raises:
        OSError: ENODEV if there is none.
    """
    ask("RTM_DELLINK", f"link {index}", lambda route: route.link("del", index=index))


def watch_addresses() -> int:
    """Return a non-blocking socket that can be read after each change of an address here.

    It stays in this network namespace, wherever its owner goes. What it says need not be read: the
    addresses are asked for then.
    """
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    handle = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_ROUTE)
    handle.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return handle.detach()


def _create(name: str, **what: Any) -> int:
    _add(name, **what)
    return _socket.if_nametoindex(name)


def _add(name: str, **what: Any) -> None:
    ask("RTM_NEWLINK", name, lambda route: route.link("add", ifname=name, **what))


def _hardware(address: str) -> dict[str, str]:
    return {"address": address} if address else {}


def ask(call: str, subject: str, request: Callable[[Any], Any]) -> list[Any]:
    """Return the messages that answer a request.

    Args:
        call: its name, for errors.
        subject: what it is about, for errors.
        request: makes it, of pyroute2's IPRoute.

    Raises:
        OSError: the kernel refuses, with its own words where it has some.
    """
    library = need_part("pyroute2.iproute.linux")
    exceptions = need_part("pyroute2.netlink.exceptions")
    with library.IPRoute(ext_ack=True) as route:
        try:
            return list(request(route))
        except exceptions.NetlinkError as error:
            number, said = error.args
            if not number:  # a mere remark
                return []
    said = "" if said == os.strerror(number) else f" ({said.rstrip('.')})"
    raise OSError(number, f"{call}: {os.strerror(number)}{said}", subject)


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
        address=message.get_attr("IFLA_ADDRESS") or "",
        master=message.get_attr("IFLA_MASTER") or 0,
    )


def _traffic(message: Any) -> Traffic:
    counted = message.get_attr("IFLA_STATS64")
    return Traffic(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        peer=message.get_attr("IFLA_LINK") or 0,
        received_bytes=counted["rx_bytes"],
        received_packets=counted["rx_packets"],
        received_errors=counted["rx_errors"],
        received_dropped=counted["rx_dropped"],
        sent_bytes=counted["tx_bytes"],
        sent_packets=counted["tx_packets"],
        sent_errors=counted["tx_errors"],
        sent_dropped=counted["tx_dropped"],
    )
