"""The steps of a machine's network, of a spec and the facts; pure functions."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, DeniedError, NotFoundError, UnsupportedError
from machinectl_py.plan import link_names
from machinectl_py.plan.build_managed import (
    PRIMARY,
    attached_name,
    check_managed,
    further_names,
    host_name,
    inside_address,
    limit_rate,
    link_further,
    long_name,
    rate_link,
    set_addresses,
)
from machinectl_py.plan.steps import forward_ports, join_network, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec, NetworkPair
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

_NFT_MARKS = frozenset('"*\\')


def check_network(spec: MachineSpec, facts: HostFacts) -> None:
    """Hold that there is what the machine will be connected with.

    Raises:
        NotFoundError: a link of the host's, or the network namespace, is missing.
        DeniedError: the network namespace is not ours to open.
        UnsupportedError: ports cannot be forwarded here, or we may not set up links.
        ConfigError: the namespace is something else; or two links would be of one name inside.
    """
    _check_rights(spec, facts)
    if facts.network.missing:
        raise NotFoundError(f"There is no link {facts.network.missing[0]} on this host")
    path = spec.network.namespace_path
    if facts.network.namespace == "missing":
        raise NotFoundError(f"There is no network namespace {path} on this host")
    if facts.network.namespace == "hidden":
        raise DeniedError(f"The network namespace {path} may not be opened")
    if facts.network.namespace == "other":
        raise ConfigError(f"{path} is no network namespace")
    if spec.network.ports and not facts.network.nft:
        raise UnsupportedError("Ports are forwarded by nft, which is missing", "Install nftables.")
    check_managed(spec, facts)
    link = link_here(spec, facts)
    if spec.network.ports and set(link) & _NFT_MARKS:
        raise ConfigError(f"The name {link} cannot stand in a rule of nftables")
    if mixed := _parents(spec.network.macvlan) & _parents(spec.network.ipvlan):
        raise ConfigError(f"The link {min(mixed)} cannot have children of both kinds")
    names = _inside_names(spec)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"Two links of the machine would be called {twice[0]}")


def _check_rights(spec: MachineSpec, facts: HostFacts) -> None:
    """Refuse what takes CAP_NET_ADMIN, which a machine with the host's network lacks."""
    network = spec.network
    pairs = network.interfaces or network.macvlan or network.ipvlan or network.veth_extra
    connects = bool(network.veth or network.attached or pairs)
    # Root of a user namespace of the machine's own has it for a network that is not connected.
    own = spec.private_network and spec.users.mode == "no"
    if (connects and not facts.network.may_connect) or (own and not facts.network.may_set_up):
        raise UnsupportedError(
            "To set up a machine's network takes CAP_NET_ADMIN, which we lack in this one",
            "If this is a machine, boot it with a network of its own, as by --network-veth.",
        )


def check_names(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the launcher's step that looks for links in the way."""
    network = spec.network
    names = [host_name(spec)] if network.veth else []
    names += [pair.host for pair in network.veth_extra]
    names += [rate_link(spec)] if network.rate_out else []
    names += [name for other in network.attached for name in further_names(spec, other)]
    return (links.CheckNames(links=tuple(names)),) if names else ()


def join(spec: MachineSpec) -> tuple[Step, ...]:
    """Return what goes before the birth of PID 1."""
    if spec.network.kind != "path":
        return ()
    return (join_network.JoinNetwork(path=spec.network.namespace_path),)


def connect(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return what goes after the birth of PID 1, in the order of systemd-nspawn."""
    if spec.network.kind == "path":
        return (join_network.LeaveNetwork(),)
    network = spec.network
    return (
        *_moved(spec),
        *_veth(spec, facts),
        *_extra(spec, facts),
        *_children(spec, facts),
        *limit_rate(host_name(spec), PRIMARY, rate_link(spec), network.rate_in, network.rate_out),
        *_ports(spec, facts),
        *set_addresses(facts),
        *(step for other in facts.network.attached for step in link_further(spec, facts, other)),
    )


def await_links(spec: MachineSpec) -> tuple[Step, ...]:
    """Return what PID 1 does before it executes the payload."""
    names = _inside_names(spec)
    is_watched = bool(spec.network.ports)
    if not names and not is_watched:
        return ()
    managed = [spec.network.managed] if spec.network.managed else []
    networks = (*managed, *spec.network.attached)
    return (links.AwaitLinks(links=names, is_watched=is_watched, networks=networks),)


def _inside_names(spec: MachineSpec) -> tuple[str, ...]:
    network = spec.network
    pairs = (*network.interfaces, *network.veth_extra, *network.macvlan, *network.ipvlan)
    names = [PRIMARY] if network.veth else []
    names += [link_names.short_name(pair.inside) for pair in pairs]
    names += [attached_name(other) for other in network.attached]
    return tuple(names)


def _parents(pairs: tuple[NetworkPair, ...]) -> set[str]:
    return {pair.host for pair in pairs}


def _moved(spec: MachineSpec) -> tuple[Step, ...]:
    pairs = spec.network.interfaces
    if not pairs:
        return ()
    move = (links.MoveLink(machine=spec.name, host=pair.host, inside=pair.inside) for pair in pairs)
    return (links.HoldNetwork(machine=spec.name), *move)


def _bridge(spec: MachineSpec, facts: HostFacts) -> str:
    """Return the bridge that the host's link is a port of, or ""."""
    if facts.network.managed:
        return facts.network.managed.bridge
    return f"vz-{spec.network.zone}" if spec.network.zone else spec.network.bridge


def _veth(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    network, host_id = spec.network, facts.files.machine_id
    if not network.veth:
        return ()
    bridge = _bridge(spec, facts)
    name, wanted = host_name(spec), long_name(spec)
    veth = links.AddVeth(
        host=name,
        alternative=wanted if name != wanted else "",
        host_address=link_names.stable_address(host_id, spec.name, link_names.HOST_KEY),
        inside=PRIMARY,
        inside_address=inside_address(spec, facts),
        bridge=bridge,
        is_zone=bool(network.zone),
        is_primary=True,
    )
    return (links.MakeZone(bridge=bridge), veth) if network.zone else (veth,)


def _extra(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    def address(key: bytes, index: int) -> str:
        return link_names.stable_address(facts.files.machine_id, spec.name, key, index)

    return tuple(
        links.AddVeth(
            host=pair.host,
            alternative="",
            host_address=address(link_names.EXTRA_HOST_KEY, index),
            inside=pair.inside,
            inside_address=address(link_names.EXTRA_INSIDE_KEY, index),
        )
        for index, pair in enumerate(spec.network.veth_extra)
    )


def link_here(spec: MachineSpec, facts: HostFacts) -> str:
    """Return the link of the host by which it reaches the machine, or ""."""
    return (_bridge(spec, facts) or host_name(spec)) if spec.network.veth else ""


def _ports(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    if not spec.network.ports:
        return ()
    return (forward_ports_of(spec, facts), forward_ports.WatchAddresses())


def forward_ports_of(spec: MachineSpec, facts: HostFacts) -> forward_ports.ForwardPorts:
    """Return the step that forwards the ports of a machine."""
    network = spec.network
    return forward_ports.ForwardPorts(
        machine=spec.name,
        ports=network.ports,
        link=link_here(spec, facts),
        inside=PRIMARY if network.veth else "",
    )


def _children(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    steps = []
    for kind, pairs in (("macvlan", spec.network.macvlan), ("ipvlan", spec.network.ipvlan)):
        for index, pair in enumerate(pairs):
            name = link_names.short_name(pair.inside)
            address = ""
            if kind == "macvlan":
                address = link_names.stable_address(
                    facts.files.machine_id, spec.name, link_names.MACVLAN_KEY, index
                )
            steps.append(
                links.AddChild(
                    kind=kind,
                    parent=pair.host,
                    inside=name,
                    alternative=pair.inside if name != pair.inside else "",
                    address=address,
                )
            )
    return tuple(steps)
