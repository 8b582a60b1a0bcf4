"""Managed networks that a machine enters, or leaves, while it runs."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, ConflictError, NotFoundError
from machinectl_py.log import warn
from machinectl_py.plan.build_managed import attach, define, further_names
from machinectl_py.plan.build_network import check_network
from machinectl_py.plan.context import Context
from machinectl_py.plan.network_facts import find_or_propose, probe_network
from machinectl_py.plan.step import Plan
from machinectl_py.plan.steps.limit_rate import LimitRate
from machinectl_py.plan.steps.links import AddVeth, CheckNames
from machinectl_py.plan.steps.managed_network import CheckFirewall, EnterNetwork
from machinectl_py.runtime.changes import Changes
from machinectl_py.runtime.journal import Journal, journaled_slots, pending_steps
from machinectl_py.runtime.live_resolver import renew_resolvers
from machinectl_py.runtime.recover import make_hooks
from machinectl_py.runtime.state import read_facts, read_spec, write_plan
from machinectl_py.runtime.walk import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.config.spec import FurtherLink, MachineSpec, NetworkSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step
    from machinectl_py.runtime.state import MachineState


def attach_network(name: str, network: str, wanted: FurtherLink | None = None) -> str:
    """Have a running machine in a further network, also after it reboots.

    Args:
        name: of the machine.
        network: its name.
        wanted: address and rates of the link to it; None for any address and no limit.

    Returns:
        the name of the link inside.

    Raises:
        NotFoundError: no such machine runs, or there is no such network.
        ConflictError: it is in it already, or a name or address is taken.
        ConfigError: the machine shares its network with the host or others; or the address is
            none of the network's.
        UnsupportedError: nft or dnsmasq is missing.
        PymachineError: a step failed; nothing is left of those before it.
    """
    with Changes(name) as changes:
        state = changes.state()
        spec, before = read_spec(state), read_facts(name)
        if spec.network.kind != "private":
            raise ConfigError(f"Machine '{name}' has no network of its own")
        if network in _networks(spec.network):
            raise ConflictError(f"Machine '{name}' is in the network '{network}' already")
        links = spec.network
        links = links.replace(
            attached=(*links.attached, network),
            further=(*links.further, *((wanted,) if wanted else ())),
        )
        spec = spec.replace(network=links)
        found, facts = _probe(spec, before, network)
        _undo(name, _steps_of(name, network))  # of one that was killed
        link = _build(state, spec, facts, found)
        if spec.resolv_conf == "auto":
            renew_resolvers(state, before.network.networks(), facts.network.networks())
        return link


def detach_network(name: str, network: str) -> None:
    """Have a running machine in a network no more, also after it reboots.

    Raises:
        NotFoundError: no such machine runs, or it is not in the network.
        ConflictError: ports are forwarded to it by this network.
        PymachineError: something could not be undone; it is once the machine ends.
    """
    with Changes(name) as changes:
        state = changes.state()
        spec, facts = read_spec(state), read_facts(name)
        left = _steps_of(name, network)
        networks = _networks(spec.network)
        if network not in networks and not left:
            hint = f"It is in {', '.join(networks)}." if networks else ""
            raise NotFoundError(f"Machine '{name}' is not in the network '{network}'", hint)
        if network == spec.network.managed and spec.network.ports:
            raise ConflictError(
                f"Ports are forwarded to '{name}' by the network '{network}'",
                f"'pymachine port remove {name} PORT…' takes them back.",
            )
        # First: what a reboot builds may not count on what is half undone.
        spec, without = _without(spec, facts, network)
        write_plan(spec, without)
        _undo(name, left)
        if spec.resolv_conf == "auto":
            renew_resolvers(state, facts.network.networks(), without.network.networks())


def _networks(network: NetworkSpec) -> tuple[str, ...]:
    return (*((network.managed,) if network.managed else ()), *network.attached)


def _probe(spec: MachineSpec, facts: HostFacts, network: str) -> tuple[ManagedNetwork, HostFacts]:
    """Return the network, and the facts of a machine that is in it."""
    now = probe_network(spec.network, facts.files.machine_id)
    check_network(spec, facts.replace(network=now))
    found, is_proposed = find_or_propose(network, facts.files.machine_id)
    assert found  # or it were not checked
    then = facts.network
    then = then.replace(
        attached=(*then.attached, found),
        proposed=(network,) if is_proposed else (),
        nft=True,
        dnsmasq=True,
    )
    return found, facts.replace(network=then)


def _build(
    state: MachineState, spec: MachineSpec, facts: HostFacts, network: ManagedNetwork
) -> str:
    """Do the steps, or undo them if one fails; then note what a reboot builds."""
    name, context, journal = spec.name, Context(make_hooks()), Journal(spec.name)
    # Whoever waits for the machine's end waits for us: `lock` is held in effect.
    context.slots |= {"leader": state.leader, "lock": -1}
    steps = (
        CheckNames(links=further_names(spec, network.name)),
        *define(facts),
        *attach(spec, facts, network),
        CheckFirewall(network=network),
    )
    walk = Walk(Plan(steps=steps), context, ("launcher", "supervisor"))
    walk.before = journal.before
    walk.after = lambda step: journal.after(step, context)
    try:
        walk.run()
    except BaseException:
        _undo(name, _steps_of(name, network.name))
        raise
    write_plan(spec, facts.replace(network=facts.network.replace(proposed=())))
    for warning in context.warnings:
        warn(warning)
    return next(step.inside for step in steps if isinstance(step, AddVeth))


def _without(spec: MachineSpec, facts: HostFacts, network: str) -> tuple[MachineSpec, HostFacts]:
    """Return both for a machine that is not in a network any more."""
    links, found = spec.network, facts.network
    if network == links.managed:
        links = links.replace(veth=False, managed="", address="", fixed="", rate_in=0, rate_out=0)
        found = found.replace(managed=None)
    links = links.replace(
        attached=tuple(one for one in links.attached if one != network),
        further=tuple(one for one in links.further if one.network != network),
    )
    found = found.replace(attached=tuple(one for one in found.attached if one.name != network))
    return spec.replace(network=links), facts.replace(network=found)


def _steps_of(name: str, network: str) -> tuple[Step, ...]:
    """Return what the journal holds of a machine's being in a network, done or only begun."""
    pending = pending_steps(name)
    entered = [one for one in pending if isinstance(one, EnterNetwork)]
    links = {one.link for one in entered if one.network.name == network}
    return tuple(
        step
        for step in pending
        if (isinstance(step, (EnterNetwork, LimitRate)) and step.link in links)
        or (isinstance(step, AddVeth) and step.host in links)
    )


def _undo(name: str, steps: tuple[Step, ...]) -> None:
    """Undo steps, the last first.

    Raises:
        OSError, PymachineError: one cannot be undone; it stays in the journal.
    """
    context, journal = Context(make_hooks()), Journal(name)
    context.slots |= journaled_slots(name)
    for step in reversed(steps):
        step.undo(context)
        journal.struck(step)
