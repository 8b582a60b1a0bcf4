"""Ports of the host that lead to a machine: nspawn's --port=."""

from __future__ import annotations

import os

from machinectl_py.config.network_values import from_port
from machinectl_py.config.spec import PortSpec
from machinectl_py.kernel import rtnl
from machinectl_py.kernel.namespaces import InNetwork
from machinectl_py.plan.port_claims import Claims
from machinectl_py.plan.port_table import TABLE, elements
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.links import link_slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class ForwardPorts(Step):
    """Take ports of the host; packets are passed on once the machine has an address."""

    name = "forward-ports"
    place = "supervisor"
    man = "nft(8) dnat"
    because = "the host's link to the machine must exist, to be reached from 127.0.0.1 too"
    lifetime = "host"
    per_boot = True
    takes = ("leader",)

    machine: str
    ports: tuple[PortSpec, ...]
    link: str = ""  # of the host, that leads to the machine
    inside: str = ""  # its other end

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots, with that of the link."""
        return (*self.takes, link_slot(self.inside)) if self.inside else self.takes

    def describe(self) -> str:
        """Return the act."""
        return f"forward {', '.join(map(from_port, self.ports))} by the table {TABLE}"

    def command(self) -> str:
        """Return the shell's way."""
        return "; ".join(
            f"nft add element {TABLE} {name} '{{ {element} }}'"
            for name, element in elements(self.ports, ipv4="ADDRESS", ipv6="ADDRESS6")
        )

    def apply(self, context: Context) -> None:
        """Take them."""
        with Claims() as claims:
            opened = claims.add(self.machine, self.ports, self.link)
        if self.link and not opened:
            context.warn(f"127.0.0.1 does not lead to {self.machine}: /proc/sys is read-only")
        if _forwards_nothing():
            context.warn(
                "net.ipv4.ip_forward is 0: only this host itself reaches the forwarded ports"
            )

    def undo(self, context: Context) -> None:
        """Give them up."""
        with Claims() as claims:
            claims.remove(self.machine)


def _forwards_nothing() -> bool:
    """Say whether the host is no router; systemd-networkd makes it one for links of machines."""
    if os.path.exists("/run/systemd/netif/links"):
        return False
    with open("/proc/sys/net/ipv4/ip_forward", encoding="utf-8") as file:
        return file.read().strip() == "0"


class WatchAddresses(Step):
    """Have the kernel tell of each change of an address of the machine's."""

    name = "watch-addresses"
    place = "supervisor"
    man = "rtnetlink(7) RTNLGRP_IPV4_IFADDR"
    because = "the socket is of the machine's network namespace, which exists by now"
    lifetime = "process"
    takes = ("leader",)
    gives = ("addresses",)

    def describe(self) -> str:
        """Return the act."""
        return "watch the machine's addresses, for its forwarded ports"

    def command(self) -> str:
        """Return the shell's way."""
        return "nsenter --target=LEADER --net ip monitor address"

    def apply(self, context: Context) -> None:
        """Open the socket in there."""
        with InNetwork(f"/proc/{context.number('leader')}/ns/net"):
            context.give("addresses", rtnl.watch_addresses())
