"""Machines come into managed networks and leave them; the networks come up and go down by need.

What is to be is written to the file of members first; what is made of it can then be made, or
removed, by any process, as often as need be.
"""

from __future__ import annotations

import os
import time

from machinectl_py.errors import ConflictError, PymachineError
from machinectl_py.kernel import netdevice, nft, rtnl
from machinectl_py.plan.link_names import BRIDGE_KEY, stable_address
from machinectl_py.plan.managed import dnsmasq, forwarding, leases, rules
from machinectl_py.plan.managed.definitions import NetworksLock, remove_file, write_file
from machinectl_py.plan.managed.filter_rules import render_bridge
from machinectl_py.plan.managed.members import (
    Member,
    Switch,
    Up,
    read_members,
    save_members,
)
from machinectl_py.plan.ports import ServiceRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.plan.context import Hooks
    from machinectl_py.plan.managed.members import Members


class InUse(NetworksLock):
    """The networks that are up, held by a lock while it is open."""

    def __init__(self, hooks: Hooks, host_id: str = "") -> None:
        """Take who runs services; and the host's machine ID, of which bridges have addresses."""
        self._hooks, self._host_id = hooks, host_id
        self._namespace = os.stat("/proc/self/ns/net").st_ino
        self.warnings: list[str] = []

    def enter(self, network: ManagedNetwork, entrant: Member) -> Member:
        """Have a machine in a network, which comes up if it is not, and is served.

        Args:
            network: as it is defined.
            entrant: the machine, with the number that it shall have; 0 for any.

        Raises:
            ConflictError: the network is up elsewhere, full, or its bridge's name is taken.
            OSError: the kernel refused.
            PymachineError: dnsmasq does not start.
        """
        machine, mac = entrant.machine, entrant.mac
        now = read_members().without(machine, network.name)
        up = self._up(now, network)
        network = up.network
        if twin := next((one for one in now.of(network.name) if one.mac == mac), None):
            raise ConflictError(
                f"Machine '{twin.machine}' has the link-layer address {mac} in that network"
            )
        running = {member.machine for member in now.of(network.name)}
        kept, number = leases.with_lease(
            leases.read_leases(network.name),
            network,
            machine,
            time.time_ns() // 1000,
            running=running,
            wanted=entrant.number,
        )
        leases.write_leases(network.name, kept)
        member = entrant.replace(number=number)
        others = tuple(one for one in now.up if one != up)
        now = now.replace(up=(*others, up), members=(*now.members, member))
        save_members(now)
        loading = self._begin_rules(now)
        try:
            self._make_bridge(up)
            now = self._forward(now, network)
            self._serve(now, network)
            self._tell_others(now, member.machine, network.name)
        finally:
            self._end_rules(now, loading)
        return member

    def leave(self, machine: str, network: str) -> None:
        """Have a machine in a network no more, and none up that has no member.

        Raises:
            OSError: the kernel refused.
            PymachineError: dnsmasq does not end.
        """
        now = read_members().without(machine, network)
        save_members(now)
        loading = self._begin_rules(now)
        try:
            for up in now.up:
                if not now.of(up.network.name):
                    self._take_down(up)
                    now = now.replace(up=tuple(one for one in now.up if one != up))
                    save_members(now)
                elif up.network.name == network:
                    self._serve(now, up.network)
            self._tell_others(now, machine, network)
            now = self._put_back(now)
        finally:
            self._end_rules(now, loading)
        save_members(now)

    def _begin_rules(self, now: Members) -> nft.Loading:
        """Begin to replace both tables by what is to be now, beside what else is to be done."""
        return nft.Loading(self._rules(now, tracked=True))

    def _end_rules(self, now: Members, loading: nft.Loading) -> None:
        """Wait until they hold, or do with what this kernel can.

        Raises:
            OSError: the kernel refuses the table of IP.
        """
        try:
            loading.wait()
        except OSError:
            try:
                nft.load(self._rules(now, tracked=False))
            except OSError:
                nft.load(rules.render(self._here(now), now.members))
                self.warnings.append(
                    "This kernel filters no packets on bridges: a machine can take another's"
                    " address, and what is denied between machines of a network passes"
                )

    def _rules(self, now: Members, *, tracked: bool) -> str:
        here = self._here(now)
        return rules.render(here, now.members) + render_bridge(here, now.members, tracked=tracked)

    def _here(self, now: Members) -> list[Up]:
        """Return the networks that are up in this network namespace."""
        here = [up for up in now.up if up.namespace == self._namespace]
        return [up for up in here if now.of(up.network.name)]

    def _up(self, now: Members, network: ManagedNetwork) -> Up:
        """Return the network as it is up, or shall be."""
        found = now.find_up(network.name)
        if found and found.namespace != self._namespace and now.of(network.name):
            raise ConflictError(
                f"The network '{network.name}' is up in another network namespace of this host"
            )
        if found and found.namespace == self._namespace:
            return found
        if rtnl.index_of(network.bridge):
            raise ConflictError(
                f"There is a link {network.bridge} on this host already",
                f"Another Bridge= in the definition of '{network.name}' avoids it.",
            )
        address = stable_address(self._host_id or "0" * 32, network.name, BRIDGE_KEY)
        return Up(namespace=self._namespace, network=network, mac=address)

    def _make_bridge(self, up: Up) -> None:
        network = up.network
        found = rtnl.index_of(network.bridge)
        index = found or rtnl.add_bridge(network.bridge, up.mac)
        try:
            forwarding.prepare_bridge(network.bridge)
        except OSError:
            self.warnings.append(f"{network.bridge} believes routers: /proc/sys is read-only")
        for subnet in network.subnets():
            address, _, prefix = str(subnet).partition("/")
            if subnet.version == 6 and not forwarding.has_ipv6():
                continue
            rtnl.add_address(index, address, int(prefix))
        netdevice.set_up(network.bridge)
        if not found:
            self._tell_resolver(index, network)

    def _tell_resolver(self, index: int, network: ManagedNetwork) -> None:
        """Have the host know the machines' names; it forgets them with the bridge."""
        try:
            self._hooks.tell_resolver(index, network.gateways(), network.name)
        except PymachineError as error:
            self.warnings.append(error.message)

    def _forward(self, now: Members, network: ManagedNetwork) -> Members:
        """Have the kernel pass packets on; that it cannot be had is told, as somebody may."""
        versions = [subnet.version for subnet in network.subnets()]
        try:
            for path, before in forwarding.switch_on(versions):
                switch = Switch(namespace=self._namespace, path=path, before=before)
                now = now.replace(switches=(*now.switches, switch))
                save_members(now)
        except OSError:
            self.warnings.append(
                f"The network '{network.name}' does not lead out of this host: packets are not"
                " forwarded, and /proc/sys is read-only"
            )
        return now

    def _put_back(self, now: Members) -> Members:
        """Put back what was switched where no network is up any more."""
        busy = {up.namespace for up in now.up}
        over = [switch for switch in now.switches if switch.namespace not in busy]
        for switch in reversed(over):
            if switch.namespace == self._namespace:
                forwarding.write(switch.path, switch.before)
        return now.replace(switches=tuple(one for one in now.switches if one not in over))

    def _tell_others(self, now: Members, machine: str, network: str) -> None:
        """Have the other networks of a machine know, or forget, names of one."""
        for up in now.up:
            name = up.network.name
            if name != network and any(one.machine == machine for one in now.of(name)):
                self._serve(now, up.network)

    def _serve(self, now: Members, network: ManagedNetwork) -> None:
        directory = dnsmasq.directory(network.name)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        others = now.others(network.name)
        for name, text in dnsmasq.files(network, now.of(network.name), others).items():
            write_file(f"{directory}/{name}", text)
        self._hooks.services().start(
            ServiceRequest(
                name=service_name(network.name),
                description=f"DHCP and DNS of the network {network.name}",
                command=dnsmasq.command(network),
                pid_file=dnsmasq.pid_file(network.name),
            )
        )

    def _take_down(self, up: Up) -> None:
        name = up.network.name
        self._hooks.services().stop(service_name(name))
        _remove_directory(dnsmasq.directory(name))
        index = rtnl.index_of(up.network.bridge)
        if up.namespace != self._namespace or not index:
            return
        link = rtnl.get_link(index)
        if link and link.kind == "bridge":
            rtnl.delete_link(index)


def _remove_directory(path: str) -> None:
    """Remove a directory of files; nothing if there is none."""
    try:
        for name in os.listdir(path):
            remove_file(f"{path}/{name}")
        os.rmdir(path)
    except FileNotFoundError:
        pass


def service_name(network: str) -> str:
    """Return the name of the unit, without its suffix, that serves a network."""
    return f"pymachine-network-{network}"
