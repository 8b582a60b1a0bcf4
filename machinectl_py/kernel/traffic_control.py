"""How fast a link may send and get; tc(8), by pyroute2."""

from __future__ import annotations

import os

from machinectl_py.thirdparty import need_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFF0000  # TC_H_ROOT, TC_H_INGRESS's handle; <linux/pkt_sched.h>
_FIRST = 0x10000  # "1:"
_ETH_P_ALL = 3
_LATENCY = "50ms"  # for which packets wait at most
_LEAST_BURST = 32 << 10  # bytes; a few packets


def shape(index: int, bits: int) -> None:
    """Limit what a link sends, by a token bucket; tc-tbf(8).

    Args:
        index: of the link.
        bits: a second.

    Raises:
        OSError: ENOENT if the kernel has no token buckets, EEXIST if there is another discipline.
    """
    rate = bits // 8
    burst = max(_LEAST_BURST, rate // 100)
    _ask(
        "RTM_NEWQDISC",
        f"tbf on link {index}",
        lambda route: route.tc(
            "add", "tbf", index, _FIRST, parent=_ROOT, rate=rate, burst=burst, latency=_LATENCY
        ),
    )


def redirect(index: int, target: int) -> None:
    """Lead what a link gets by another, and back, so that it is shaped there; tc-mirred(8).

    Args:
        index: of the link.
        target: of the other, an ifb.

    Raises:
        OSError: ENOENT if the kernel cannot.
    """
    _ask(
        "RTM_NEWQDISC",
        f"ingress of link {index}",
        lambda route: route.tc("add", "ingress", index, _INGRESS),
    )
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": target}
    _ask(
        "RTM_NEWTFILTER",
        f"u32 on link {index}",
        lambda route: route.tc(
            "add-filter",
            "u32",
            index,
            parent=_INGRESS,
            prio=1,
            protocol=_ETH_P_ALL,
            keys=["0x0/0x0+0"],  # all packets
            target=_FIRST,
            action=action,
        ),
    )


def preload() -> None:
    """Import the library already, without the parts of it that we do not use."""
    for part in ("pyroute2.iproute.linux", "pyroute2.netlink.exceptions"):
        need_part(part)


def _ask(call: str, subject: str, request: Callable[[Any], Any]) -> None:
    """Have pyroute2's IPRoute ask.

    Args:
        call: its name, for errors.
        subject: what it is about, for errors.
        request: makes it.

    Raises:
        OSError: the kernel refuses, with its own words where it has some.
    """
    library = need_part("pyroute2.iproute.linux")
    exceptions = need_part("pyroute2.netlink.exceptions")
    with library.IPRoute(ext_ack=True) as route:
        try:
            request(route)
        except exceptions.NetlinkError as error:
            number, said = error.args
            if not number:  # a mere remark
                return
            more = "" if said == os.strerror(number) else f" ({said.rstrip('.')})"
            raise OSError(number, f"{call}: {os.strerror(number)}{more}", subject) from error
