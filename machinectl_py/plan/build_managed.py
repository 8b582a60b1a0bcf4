"""The steps of managed networks, of a spec and the facts; pure functions."""

from __future__ import annotations

from machinectl_py.config.subnet import read_address
from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError
from machinectl_py.plan import link_names
from machinectl_py.plan.managed.numbers import is_usable
from machinectl_py.plan.steps import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

PRIMARY = "host0"  # what systemd-nspawn calls the link of --network-veth inside


def check_managed(spec: MachineSpec, facts: HostFacts) -> None:
    """Hold that the machine's managed networks are there, and can be served.

    Raises:
        NotFoundError: one is not defined.
        UnsupportedError: nft or dnsmasq is missing.
        ConfigError: the address that was asked for is none of the network's.
    """
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
        _wanted_number(spec.network.fixed, found.managed)
    for network in found.attached:
        _wanted_number(spec.network.further_link(network.name).fixed, network)


def _wanted_number(fixed: str, network: ManagedNetwork) -> int:
    """Return the number of the address that was asked for, 0 for any.

    Raises:
        ConfigError: no machine of the network can have it.
    """
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


def long_name(spec: MachineSpec) -> str:
    """Return the name that the link of --network-veth would have here if names had no limit."""
    network = spec.network
    return f"{'vb' if network.bridge or network.zone or network.managed else 've'}-{spec.name}"


def host_name(spec: MachineSpec) -> str:
    """Return the name here of the link of --network-veth."""
    return link_names.short_name(long_name(spec))


def inside_address(spec: MachineSpec, facts: HostFacts) -> str:
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
            mac=inside_address(spec, facts),
            link=host_name(spec),
            host_id=facts.files.machine_id,
            allow=spec.network.allow,
            deny=spec.network.deny,
            wanted=_wanted_number(spec.network.fixed, managed),
        )
        steps.append(first)
    return (*steps, *(_enter_further(spec, facts, other) for other in facts.network.attached))


def attached_name(network: str) -> str:
    """Return how the link of a further network is called inside."""
    return link_names.short_name(f"pm-{network}")


def attached_host_name(spec: MachineSpec, network: str) -> str:
    """Return how its other end is called here."""
    return link_names.short_name(f"vb-{spec.name}-{network}")


def further_names(spec: MachineSpec, network: str) -> tuple[str, ...]:
    """Return what the links here of a further network are called: the other end, and a shaper."""
    shaper = _further_rate_link(spec, network)
    return (attached_host_name(spec, network), *((shaper,) if shaper else ()))


def rate_link(spec: MachineSpec) -> str:
    """Return the link that shapes what the machine sends by its first, "" if nothing does."""
    return link_names.short_name(f"pi-{spec.name}") if spec.network.rate_out else ""


def _further_rate_link(spec: MachineSpec, network: str) -> str:
    """Return the one of what it sends in a further network."""
    limited = spec.network.further_link(network).rate_out
    return link_names.short_name(f"pi-{spec.name}-{network}") if limited else ""


def limit_rate(
    link: str, inside: str, shaper: str, rate_in: int, rate_out: int
) -> tuple[Step, ...]:
    """Return the step that limits what goes over a link, if anything does.

    Args:
        link: the host's end.
        inside: the machine's.
        shaper: the link that shapes what the machine sends; "" for none.
        rate_in: bits a second to the machine; 0 is no limit.
        rate_out: and from it.
    """
    if not rate_in and not rate_out:
        return ()
    from machinectl_py.plan.steps.limit_rate import LimitRate

    return (LimitRate(link=link, inside=inside, shaper=shaper, rate_in=rate_in, rate_out=rate_out),)


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
        wanted=_wanted_number(spec.network.further_link(network.name).fixed, network),
    )


def link_further(spec: MachineSpec, facts: HostFacts, network: ManagedNetwork) -> tuple[Step, ...]:
    """Return the steps that make the link to a further network that has been entered."""
    from machinectl_py.plan.steps.managed_network import SetAddresses

    here, inside = attached_host_name(spec, network.name), attached_name(network.name)
    long = f"vb-{spec.name}-{network.name}"
    name, wanted = network.name, spec.network.further_link(network.name)
    shaper = _further_rate_link(spec, name)
    return (
        links.AddVeth(
            host=here,
            alternative=long if here != long else "",
            host_address=_further_address(spec, facts, name, link_names.EXTRA_HOST_KEY),
            inside=inside,
            inside_address=_further_address(spec, facts, name, link_names.EXTRA_INSIDE_KEY),
            bridge=network.bridge,
        ),
        *limit_rate(here, inside, shaper, wanted.rate_in, wanted.rate_out),
        SetAddresses(network=network, inside=inside, is_further=True),
    )


def attach(spec: MachineSpec, facts: HostFacts, network: ManagedNetwork) -> tuple[Step, ...]:
    """Return the steps that have a machine in a further network."""
    return (_enter_further(spec, facts, network), *link_further(spec, facts, network))


def set_addresses(facts: HostFacts) -> tuple[Step, ...]:
    """Return what gives the machine its addresses: once those who wait for them are ready."""
    if facts.network.managed is None:
        return ()
    from machinectl_py.plan.steps.managed_network import SetAddresses

    return (SetAddresses(network=facts.network.managed, inside=PRIMARY),)


def check_firewall(facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that look for what stops packets of managed networks."""
    if not facts.network.networks():
        return ()
    from machinectl_py.plan.steps.managed_network import CheckFirewall

    return tuple(CheckFirewall(network=network) for network in facts.network.networks())
