"""Links of a machine's own network namespace: made, or moved there, by the PID of its leader.

From the host's side, as an init wrapper in a user namespace may not touch the host's links.
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError, NotFoundError, UnsupportedError
from machinectl_py.kernel import const, rtnl
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.locks import drop_lock, wait_lock
from machinectl_py.kernel.namespaces import InNetwork
from machinectl_py.layout import machine_dir
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

# systemd-nspawn's lock of the bridges of zones, which it and we make and remove by need.
_ZONE_LOCK = "/run/systemd/nspawn-network-zone"
_EEXIST, _ENODEV, _EINVAL, _EOPNOTSUPP = 17, 19, 22, 95


def link_slot(inside: str) -> str:
    """Return the slot that is filled once the link of this name is in the machine."""
    return f"link {inside}"


def ready_slot(network: str) -> str:
    """Return the slot that is filled once the machine has its addresses in a managed network."""
    return f"network {network}"


def namespace_path(machine: str) -> str:
    """Return where the network namespace of a machine is held."""
    return f"{machine_dir(machine)}/network"


class CheckNames(Step):
    """Hold that the names of links to be made here are free."""

    name = "check-link-names"
    place = "launcher"
    man = "if_nametoindex(3)"
    because = "a link of that name that is found later, by undoing, is ours then"
    lifetime = "process"
    takes = ("lock",)

    links: tuple[str, ...]

    def describe(self) -> str:
        """Return the act."""
        return f"check that there is no link {' or '.join(self.links)} yet"

    def apply(self, context: Context) -> None:
        """Look for each."""
        for link in self.links:
            if rtnl.index_of(link):
                raise ConflictError(f"There is a link {link} on this host already")


class AwaitLinks(Step):
    """Wait for what is made from outside: links, and the watch of their addresses."""

    name = "await-links"
    man = "rtnetlink(7)"
    because = "an init, or a command, looks for its links once it runs"

    links: tuple[str, ...]
    is_watched: bool = False  # the addresses are
    networks: tuple[str, ...] = ()  # managed ones, whose addresses are set from outside

    def describe(self) -> str:
        """Return the act."""
        links = f"the links {', '.join(self.links)}" if self.links else ""
        watch = "the watch of addresses" if self.is_watched else ""
        addresses = f"addresses in {', '.join(self.networks)}" if self.networks else ""
        return f"wait for {' and '.join(filter(None, (links, addresses, watch)))}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return a slot for each."""
        slots = tuple(link_slot(link) for link in self.links)
        slots = (*slots, "addresses") if self.is_watched else slots
        return (*slots, *(ready_slot(network) for network in self.networks))

    def apply(self, context: Context) -> None:
        """Do nothing: the slots are filled."""


class MakeZone(Step):
    """Make the bridge of a zone, unless another machine of the zone has it made already."""

    name = "make-zone"
    place = "supervisor"
    man = "systemd-nspawn(1) --network-zone="
    because = "undone after its ports are gone: the last machine of the zone removes it"
    lifetime = "host"
    takes = ("lock",)

    bridge: str

    def describe(self) -> str:
        """Return the act."""
        return f"make the bridge {self.bridge} if there is none"

    def command(self) -> str:
        """Return the shell's way."""
        return f"ip link add {self.bridge} type bridge"

    def apply(self, context: Context) -> None:
        """Make it under the lock of zones."""
        lock = wait_lock(_ZONE_LOCK)
        try:
            _ensure_bridge(self.bridge)
        finally:
            drop_lock(_ZONE_LOCK, lock)

    def undo(self, context: Context) -> None:
        """Remove it if it has no port left, whoever made it."""
        lock = wait_lock(_ZONE_LOCK)
        try:
            index = rtnl.index_of(self.bridge)
            link = rtnl.get_link(index) if index else None
            if link is None or link.kind != "bridge":
                return
            if not any(port.master == index for port in rtnl.links()):
                rtnl.delete_link(index)
        finally:
            drop_lock(_ZONE_LOCK, lock)


def _ensure_bridge(name: str) -> int:
    return rtnl.index_of(name) or rtnl.add_bridge(name)


class AddVeth(Step):
    """Make a pair of virtual links, one end here, the other in the machine."""

    name = "add-veth"
    place = "supervisor"
    man = "veth(4)"
    because = "the other end is born in the machine, so its namespace must exist"
    lifetime = "host"
    per_boot = True
    takes = ("leader",)

    host: str
    alternative: str  # the name that `host` is short for, or ""
    host_address: str  # of the link layer; "" is the kernel's choice
    inside: str
    inside_address: str
    bridge: str = ""  # that the link here becomes a port of
    is_zone: bool = False  # the bridge is made by need
    is_primary: bool = False  # the one that systemd-machined is told of

    def label(self) -> str:
        """Return the name with that of the link."""
        return f"{self.name} {self.host}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the index here, and that of the link by which the host reaches the machine."""
        slots = (link_slot(self.inside),)
        return (*slots, "interface") if self.is_primary else slots

    def describe(self) -> str:
        """Return the act."""
        here = " ".join(filter(None, (self.host, self.host_address)))
        there = " ".join(filter(None, (self.inside, self.inside_address)))
        port = f", {self.host} as a port of {self.bridge}" if self.bridge else ""
        return f"add the veth pair {here} and {there} inside{port}"

    def command(self) -> str:
        """Return the shell's way."""
        words = ["ip link add", self.host]
        words += ["address", self.host_address] if self.host_address else []
        words += ["up master", self.bridge] if self.bridge else []
        words += ["type veth peer", self.inside]
        words += ["address", self.inside_address] if self.inside_address else []
        return " ".join((*words, "netns LEADER"))

    def apply(self, context: Context) -> None:
        """Make it, in a zone under the lock of zones so that none removes the empty bridge."""
        if not self.is_zone:
            index = self._add(context, rtnl.index_of(self.bridge) if self.bridge else 0)
        else:
            lock = wait_lock(_ZONE_LOCK)
            try:
                index = self._add(context, _ensure_bridge(self.bridge))
            finally:
                drop_lock(_ZONE_LOCK, lock)
        if self.alternative:
            try:
                rtnl.add_alternative_name(index, self.alternative)
            except OSError as error:
                context.warn(f"{self.host} has no name {self.alternative}: {error.strerror}")

    def _add(self, context: Context, bridge: int) -> int:
        if self.bridge and not bridge:
            raise NotFoundError(f"There is no bridge {self.bridge} on this host")
        try:
            index = rtnl.add_veth(
                self.host,
                self.host_address,
                peer=self.inside,
                peer_address=self.inside_address,
                pid=context.number("leader"),
                master=bridge,
            )
        except OSError as error:
            if error.errno == _EEXIST:
                raise ConflictError(
                    f"There is a link {self.host} already, or two of the machine's are called"
                    f" {self.inside}"
                ) from error
            if error.errno == _EOPNOTSUPP and bridge:
                raise ConflictError(f"The link {self.bridge} is no bridge") from error
            raise
        context.give(link_slot(self.inside), index)
        if self.is_primary:
            context.give("interface", bridge or index)
        return index

    def undo(self, context: Context) -> None:
        """Remove it if it is there yet: the kernel may hold it for longer than its namespace.

        One that was made and not noted is known by what it is: its name was free before.
        """
        index = context.slots.get(link_slot(self.inside), 0)
        assert isinstance(index, int)
        found = rtnl.index_of(self.host)
        link = rtnl.get_link(found) if found and index in (0, found) else None
        if link is None or (link.name, link.kind) != (self.host, "veth"):
            return
        if not index and self.host_address not in ("", link.address):
            return
        try:
            rtnl.delete_link(found)
        except OSError as error:
            if error.errno != _ENODEV:  # gone with the namespace, just now
                raise


class AddChild(Step):
    """Make a link on one of the host's, in the machine."""

    name = "add-child-link"
    place = "supervisor"
    man = "ip-link(8)"
    because = "it is born in the machine, so its namespace must exist, and ends with it"
    takes = ("leader",)

    kind: str  # "macvlan" or "ipvlan"
    parent: str
    inside: str
    alternative: str  # the name that `inside` is short for, or ""
    address: str = ""  # of the link layer; an ipvlan has its parent's

    def label(self) -> str:
        """Return the name with that of the link."""
        return f"{self.name} {self.inside}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the one of the link."""
        return (link_slot(self.inside),)

    def describe(self) -> str:
        """Return the act."""
        mode = "bridge" if self.kind == "macvlan" else "l2"
        link = " ".join(filter(None, (self.inside, self.address)))
        return f"add the {self.kind} {link} inside, on {self.parent}, mode {mode}"

    def command(self) -> str:
        """Return the shell's way."""
        mode = "bridge" if self.kind == "macvlan" else "l2"
        address = f" address {self.address}" if self.address else ""
        return (
            f"ip link add link {self.parent} name {self.inside}{address} netns LEADER"
            f" type {self.kind} mode {mode}"
        )

    def apply(self, context: Context) -> None:
        """Make it, with its long name where that was too long."""
        parent, leader = _index(self.parent), context.number("leader")
        link = rtnl.get_link(parent)
        if link is not None and link.master:
            raise ConflictError(f"The link {self.parent} is a port of another already")
        try:
            if self.kind == "macvlan":
                rtnl.add_macvlan(self.inside, self.address, parent=parent, pid=leader)
            else:
                rtnl.add_ipvlan(self.inside, parent=parent, pid=leader)
        except OSError as error:
            if error.errno == _EOPNOTSUPP:
                raise UnsupportedError(f"This kernel has no links of type {self.kind}") from error
            raise
        if self.alternative:
            with InNetwork(f"/proc/{leader}/ns/net"):
                rtnl.add_alternative_name(rtnl.index_of(self.inside), self.alternative)
        context.give(link_slot(self.inside), 1)


def _index(name: str) -> int:
    index = rtnl.index_of(name)
    if not index:
        raise NotFoundError(f"There is no link {name} on this host")
    return index


class HoldNetwork(Step):
    """Hold the machine's network namespace by a mount, so that it outlives the machine."""

    name = "hold-network"
    place = "supervisor"
    man = "network_namespaces(7)"
    because = "with the namespace the links that were moved into it would be gone"
    lifetime = "host"
    per_boot = True
    takes = ("leader",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"bind mount the machine's network namespace on {namespace_path(self.machine)}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount --bind /proc/LEADER/ns/net {namespace_path(self.machine)}"

    def apply(self, context: Context) -> None:
        """Mount it on an empty file."""
        path = namespace_path(self.machine)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        source = f"/proc/{context.number('leader')}/ns/net"
        kernel_mount.mount(source, path, "", const.MS_BIND)

    def undo(self, context: Context) -> None:
        """Let it go."""
        path = namespace_path(self.machine)
        try:
            kernel_mount.unmount_all(path)
            os.unlink(path)
        except FileNotFoundError:
            pass


class MoveLink(Step):
    """Move a link of the host's into the machine, and back at its end."""

    name = "move-link"
    place = "supervisor"
    man = "rtnetlink(7) IFLA_NET_NS_FD"
    because = "its namespace is held by now, from which it comes back"
    lifetime = "host"
    per_boot = True
    takes = ("leader",)

    machine: str
    host: str
    inside: str

    def label(self) -> str:
        """Return the name with that of the link."""
        return f"{self.name} {self.host}"

    def given_slots(self) -> tuple[str, ...]:
        """Return the link's index inside."""
        return (link_slot(self.inside),)

    def describe(self) -> str:
        """Return the act."""
        name = f", as {self.inside}" if self.inside != self.host else ""
        return f"move the link {self.host} into the machine{name}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"ip link set {self.host} netns LEADER name {self.inside}"

    def apply(self, context: Context) -> None:
        """Move it; the kernel may give it another index there."""
        index = _index(self.host)
        held = os.open(namespace_path(self.machine), os.O_RDONLY | os.O_CLOEXEC)
        try:
            rtnl.move_link(index, held, self.inside)
        except OSError as error:
            if error.errno == _EINVAL:
                raise ConflictError(f"The link {self.host} cannot leave its namespace") from error
            raise
        finally:
            os.close(held)
        with InNetwork(namespace_path(self.machine)):
            context.give(link_slot(self.inside), rtnl.index_of(self.inside))

    def undo(self, context: Context) -> None:
        """Move it back under its name, whatever the machine called it; nothing if it is gone."""
        index = context.slots.get(link_slot(self.inside), 0)
        assert isinstance(index, int)
        if not index and rtnl.index_of(self.host):  # never moved
            return
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with InNetwork(namespace_path(self.machine)):
                index = index or rtnl.index_of(self.inside)
                if index and rtnl.get_link(index):
                    rtnl.move_link(index, home, self.host)
        except FileNotFoundError:  # it was never held, so nothing was moved
            pass
        finally:
            os.close(home)
