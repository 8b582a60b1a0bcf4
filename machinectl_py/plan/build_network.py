"""The steps of a machine's network, of a spec and the facts; pure functions."""

from __future__ import annotations

from machinectl_py.config.subnet import read_address
from machinectl_py.errors import ConfigError, DeniedError, NotFoundError, UnsupportedError
from machinectl_py.plan import link_names
from machinectl_py.plan.managed.numbers import is_usable
from machinectl_py.plan.steps import forward_ports, join_network, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.config.spec import MachineSpec, NetworkPair
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

_NFT_MARKS = frozenset('"*\\')
_PRIMARY = "host0"  # what systemd-nspawn calls the link of --network-veth inside


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
    _check_managed(spec, facts)
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


def _check_managed(spec: MachineSpec, facts: HostFacts) -> None:
    found = facts.network
    if not spec.network.managed and not spec.network.attached:
        return
    if found.unknown:
        name = found.unknown[0]
        raise NotFoundError(
            f"There is no network '{name}'", f"'pymachine network create {name}' makes it."
        )
    if not found.nft:
        raise UnsupportedError("Managed networks need nft, which is missing", "Install nftables.")
    if not found.dnsmasq:
        raise UnsupportedError(
            "Managed networks are served by dnsmasq, which is missing",
            "Install dnsmasq-base (on other systems than Debian: dnsmasq).",
        )
    if found.managed:
        _wanted_number(spec, found.managed)


def _wanted_number(spec: MachineSpec, network: ManagedNetwork) -> int:
    """Return the number of the address that was asked for, 0 for any.

    Raises:
        ConfigError: no machine of the network can have it.
    """
    fixed = spec.network.fixed
    if not fixed:
        return 0
    version, address = read_address(fixed)
    for subnet in network.subnets():
        number = subnet.number_of(address)
        if subnet.version == version and is_usable(network, number):
            return number
    subnets = " and ".join(f"{subnet.at(0)}/{subnet.prefix}" for subnet in network.subnets())
    raise ConfigError(
        f"{fixed} is no address for a machine in the network '{network.name}'",
        f"Its subnets are {subnets}.",
    )


def define(facts: HostFacts) -> tuple[Step, ...]:
    """Return the launcher's step that defines a network which was proposed."""
    if not facts.network.proposed:
        return ()
    from machinectl_py.plan.steps.managed_network import DefineNetwork

    found = facts.network
    return tuple(
        DefineNetwork(network=one) for one in found.networks() if one.name in found.proposed
    )


def resolver(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the step that has the machine ask the resolver of its first managed network."""
    networks = facts.network.networks()
    if not networks or spec.resolv_conf != "auto":
        return ()
    from machinectl_py.plan.steps.resolver import WriteResolver

    return (
        WriteResolver(
            servers=networks[0].gateways(),
            domains=tuple(network.name for network in networks),
            boots=spec.payload.kind == "boot",
        ),
    )


def check_names(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the launcher's step that looks for links in the way."""
    network = spec.network
    names = [_host_name(spec)] if network.veth else []
    names += [pair.host for pair in network.veth_extra]
    names += [_rate_link(spec)] if network.rate_out else []
    names += [attached_host_name(spec, other) for other in network.attached]
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
    return (
        *_moved(spec),
        *_veth(spec, facts),
        *_extra(spec, facts),
        *_children(spec, facts),
        *_limit_rate(spec),
        *_ports(spec, facts),
        *_set_addresses(facts),
        *(step for other in facts.network.attached for step in _link(spec, facts, other)),
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
    names = [_PRIMARY] if network.veth else []
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


def _long_name(spec: MachineSpec) -> str:
    network = spec.network
    return f"{'vb' if network.bridge or network.zone or network.managed else 've'}-{spec.name}"


def _host_name(spec: MachineSpec) -> str:
    """Return the name here of the link of --network-veth."""
    return link_names.short_name(_long_name(spec))


def _veth(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    network, host_id = spec.network, facts.files.machine_id
    if not network.veth:
        return ()
    bridge = _bridge(spec, facts)
    name, wanted = _host_name(spec), _long_name(spec)
    veth = links.AddVeth(
        host=name,
        alternative=wanted if name != wanted else "",
        host_address=link_names.stable_address(host_id, spec.name, link_names.HOST_KEY),
        inside=_PRIMARY,
        inside_address=_inside_address(spec, facts),
        bridge=bridge,
        is_zone=bool(network.zone),
        is_primary=True,
    )
    return (links.MakeZone(bridge=bridge), veth) if network.zone else (veth,)


def _inside_address(spec: MachineSpec, facts: HostFacts) -> str:
    """Return the link-layer address of the machine's end; one of a managed network has one."""
    host_id = facts.files.machine_id or ("0" * 32 if spec.network.managed else "")
    stable = link_names.stable_address(host_id, spec.name, link_names.INSIDE_KEY)
    return spec.network.address or stable


def enter(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that have the managed networks ready for the machine's links."""
    managed = facts.network.managed
    if not facts.network.networks():
        return ()
    from machinectl_py.plan.steps.managed_network import EnterNetwork

    steps = []
    if managed:
        first = EnterNetwork(
            machine=spec.name,
            network=managed,
            mac=_inside_address(spec, facts),
            link=_host_name(spec),
            host_id=facts.files.machine_id,
            allow=spec.network.allow,
            deny=spec.network.deny,
            wanted=_wanted_number(spec, managed),
        )
        steps.append(first)
    return (*steps, *(_enter_further(spec, facts, other) for other in facts.network.attached))


def attached_name(network: str) -> str:
    """Return how the link of a further network is called inside."""
    return link_names.short_name(f"pm-{network}")


def attached_host_name(spec: MachineSpec, network: str) -> str:
    """Return how its other end is called here."""
    return link_names.short_name(f"vb-{spec.name}-{network}")


def _further_address(spec: MachineSpec, facts: HostFacts, network: str, key: bytes) -> str:
    """Return the link-layer address of an end of the link to a further network.

    By the network's name: a number in the list of them would be another after changes.
    """
    return link_names.stable_address(
        facts.files.machine_id or "0" * 32, f"{spec.name} {network}", key
    )


def _enter_further(spec: MachineSpec, facts: HostFacts, network: ManagedNetwork) -> Step:
    from machinectl_py.plan.steps.managed_network import EnterNetwork

    return EnterNetwork(
        machine=spec.name,
        network=network,
        mac=_further_address(spec, facts, network.name, link_names.EXTRA_INSIDE_KEY),
        link=attached_host_name(spec, network.name),
        host_id=facts.files.machine_id,
        allow=spec.network.allow,
        deny=spec.network.deny,
    )


def _link(spec: MachineSpec, facts: HostFacts, network: ManagedNetwork) -> tuple[Step, ...]:
    """Return the steps that make the link to a further network that has been entered."""
    from machinectl_py.plan.steps.managed_network import SetAddresses

    here, inside = attached_host_name(spec, network.name), attached_name(network.name)
    long = f"vb-{spec.name}-{network.name}"
    name = network.name
    return (
        links.AddVeth(
            host=here,
            alternative=long if here != long else "",
            host_address=_further_address(spec, facts, name, link_names.EXTRA_HOST_KEY),
            inside=inside,
            inside_address=_further_address(spec, facts, name, link_names.EXTRA_INSIDE_KEY),
            bridge=network.bridge,
        ),
        SetAddresses(network=network, inside=inside, is_further=True),
    )


def attach(spec: MachineSpec, facts: HostFacts, network: ManagedNetwork) -> tuple[Step, ...]:
    """Return the steps that have a machine in a further network."""
    return (_enter_further(spec, facts, network), *_link(spec, facts, network))


def _set_addresses(facts: HostFacts) -> tuple[Step, ...]:
    """Return what gives the machine its addresses: once those who wait for them are ready."""
    if facts.network.managed is None:
        return ()
    from machinectl_py.plan.steps.managed_network import SetAddresses

    return (SetAddresses(network=facts.network.managed, inside=_PRIMARY),)


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


def check_firewall(facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that look for what stops packets of managed networks."""
    if not facts.network.networks():
        return ()
    from machinectl_py.plan.steps.managed_network import CheckFirewall

    return tuple(CheckFirewall(network=network) for network in facts.network.networks())


def _rate_link(spec: MachineSpec) -> str:
    """Return the link that shapes what the machine sends, "" if nothing does."""
    return link_names.short_name(f"pi-{spec.name}") if spec.network.rate_out else ""


def _limit_rate(spec: MachineSpec) -> tuple[Step, ...]:
    network = spec.network
    if not network.rate_in and not network.rate_out:
        return ()
    from machinectl_py.plan.steps.limit_rate import LimitRate

    return (
        LimitRate(
            link=_host_name(spec),
            inside=_PRIMARY,
            shaper=_rate_link(spec),
            rate_in=network.rate_in,
            rate_out=network.rate_out,
        ),
    )


def link_here(spec: MachineSpec, facts: HostFacts) -> str:
    """Return the link of the host by which it reaches the machine, or ""."""
    return (_bridge(spec, facts) or _host_name(spec)) if spec.network.veth else ""


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
        inside=_PRIMARY if network.veth else "",
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
