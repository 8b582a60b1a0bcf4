"""A machine in a managed network: docs/design/managed-network.md."""

from __future__ import annotations

from machinectl_py.config.managed_network import ManagedNetwork
from machinectl_py.config.spec import Traffic
from machinectl_py.errors import ConflictError
from machinectl_py.kernel import netdevice, rtnl
from machinectl_py.kernel.namespaces import InNetwork
from machinectl_py.plan.managed.definitions import (
    NetworksLock,
    definition_path,
    need_network,
    save_network,
)
from machinectl_py.plan.managed.forwarding import has_ipv6
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.links import link_slot, ready_slot

_FURTHER = 4096  # metrics of routes by further networks; those of clients inside are lower

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class DefineNetwork(Step):
    """Write the definition of a network that has none yet: the default one, at its first use."""

    name = "define-network"
    place = "launcher"
    man = ""
    because = "a failing boot leaves at worst a definition, which the next one uses"
    lifetime = "process"
    takes = ("lock",)

    network: ManagedNetwork

    def describe(self) -> str:
        """Return the act."""
        subnets = " and ".join(map(str, self.network.subnets()))
        return f"define the network {self.network.name}, {subnets}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"pymachine network create {self.network.name}"

    def apply(self, context: Context) -> None:
        """Write it, unless somebody was faster; then it must be the same."""
        with NetworksLock():
            written = save_network(self.network)
            if not written and need_network(self.network.name) != self.network:
                raise ConflictError(
                    f"The network '{self.network.name}' has just been defined otherwise",
                    f"Try again; {definition_path(self.network.name)} holds it.",
                )


class EnterNetwork(Step):
    """Have the machine in a managed network, which comes up if it is not."""

    name = "enter-network"
    place = "supervisor"
    man = "dnsmasq(8), nft(8), bridge(8)"
    because = (
        "while systemd makes the cgroup; undone after the machine's link, a port of the bridge"
    )
    lifetime = "host"
    takes = ("lock",)

    machine: str
    network: ManagedNetwork
    mac: str  # of the machine's link
    link: str  # the other end, a port of the bridge
    host_id: str
    wanted: int = 0  # the number of its address; 0 for any
    allow: tuple[Traffic, ...] = ()
    deny: tuple[Traffic, ...] = ()

    def label(self) -> str:
        """Return the name with that of the network."""
        return f"{self.name} {self.network.name}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the one of the machine's number in the network."""
        return (_number_slot(self.network),)

    def describe(self) -> str:
        """Return the act."""
        network = self.network
        subnets = ", ".join(map(str, network.subnets()))
        return f"enter the network {network.name}: bridge {network.bridge} with {subnets}, dnsmasq"

    def command(self) -> str:
        """Return the shell's way."""
        bridge = self.network.bridge
        return f"ip link add {bridge} type bridge; dnsmasq --interface={bridge} …; nft -f …"

    def apply(self, context: Context) -> None:
        """Enter it."""
        from machinectl_py.plan.managed.in_use import InUse
        from machinectl_py.plan.managed.members import Member

        with InUse(context.hooks, self.host_id) as in_use:
            member = in_use.enter(
                self.network,
                Member(
                    machine=self.machine,
                    network=self.network.name,
                    number=self.wanted,
                    mac=self.mac,
                    link=self.link,
                    allow=self.allow,
                    deny=self.deny,
                ),
            )
            for warning in in_use.warnings:
                context.warn(warning)
        context.give(_number_slot(self.network), member.number)

    def undo(self, context: Context) -> None:
        """Leave it."""
        from machinectl_py.plan.managed.in_use import InUse

        with InUse(context.hooks) as in_use:
            in_use.leave(self.machine, self.network.name)


class CheckFirewall(Step):
    """Tell which rule of others stops the network's packets; ours cannot let them pass."""

    name = "check-firewall"
    place = "supervisor"
    man = "nft(8)"
    because = "last, as nothing waits for it: a packet passes only if all tables let it"
    lifetime = "process"

    network: ManagedNetwork

    def label(self) -> str:
        """Return the name with that of the network."""
        return f"{self.name} {self.network.name}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the one of the network."""
        return (ready_slot(self.network.name),)

    def describe(self) -> str:
        """Return the act."""
        return f"look for rules that stop DHCP, DNS or packets of {self.network.bridge}"

    def command(self) -> str:
        """Return the shell's way."""
        return "nft list ruleset"

    def apply(self, context: Context) -> None:
        """Look at all rules, as far as they can be listed."""
        from machinectl_py.plan.managed.obstacles import of_firewall

        try:
            for obstacle in of_firewall(self.network):
                context.warn(f"{obstacle.text}. To let them pass: {obstacle.remedy}")
        except OSError:
            return


class SetAddresses(Step):
    """Give the machine's link its addresses, and the machine its routes, from outside."""

    name = "set-addresses"
    place = "supervisor"
    man = "rtnetlink(7)"
    because = "a payload may have no DHCP client; one that has gets the same from dnsmasq"
    takes = ("leader",)

    network: ManagedNetwork
    inside: str
    is_further: bool = False  # routes by it only where none by others leads

    def label(self) -> str:
        """Return the name with that of the link."""
        return f"{self.name} {self.inside}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots, with that of the link."""
        return (*self.takes, link_slot(self.inside), _number_slot(self.network))

    def given_slots(self) -> tuple[str, ...]:
        """Return the one of the network."""
        return (ready_slot(self.network.name),)

    def describe(self) -> str:
        """Return the act."""
        gateways = " and ".join(self.network.gateways())
        return f"set {self.inside} up, with the leased addresses, and routes by {gateways}"

    def command(self) -> str:
        """Return the shell's way."""
        routes = "; ".join(f"ip route add default via {via}" for via in self.network.gateways())
        return f"nsenter --target=LEADER --net ip address add ADDRESS dev {self.inside}; {routes}"

    def apply(self, context: Context) -> None:
        """Set them."""
        number = context.number(_number_slot(self.network))
        with InNetwork(f"/proc/{context.number('leader')}/ns/net"):
            netdevice.set_up(self.inside)
            index = rtnl.index_of(self.inside)
            for subnet, gateway in zip(
                self.network.subnets(), self.network.gateways(), strict=True
            ):
                if subnet.version == 4 or has_ipv6():
                    rtnl.add_address(index, subnet.at(number), subnet.prefix)
                    # A metric of its own: with another route's it would be that.
                    metric = _FURTHER + index if self.is_further else 0
                    rtnl.add_default_route(index, gateway, metric)
        context.give(ready_slot(self.network.name), 1)


def _number_slot(network: ManagedNetwork) -> str:
    return f"number in {network.name}"
