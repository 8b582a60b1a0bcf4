"""The steps of a machine's network by their places in the order; none if it has the host's."""

from __future__ import annotations

from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step


class NetworkSteps(Record):
    """Each in the place that its name tells."""

    launcher: tuple[Step, ...] = ()  # before the root is touched
    early: tuple[Step, ...] = ()  # before the cgroup is waited for
    before_birth: tuple[Step, ...] = ()
    after_birth: tuple[Step, ...] = ()
    last: tuple[Step, ...] = ()  # of the supervisor's; nothing waits for them
    mounts: tuple[Step, ...] = ()  # inside
    awaited: tuple[Step, ...] = ()  # inside, before the payload


def network_steps(spec: MachineSpec, facts: HostFacts) -> NetworkSteps:
    """Return the steps of a machine's network.

    Raises:
        PymachineError: it cannot be made so, or not here; as `build_network.check_network`.
    """
    if spec.network.kind == "host":  # which needs none of the modules
        return NetworkSteps()
    from machinectl_py.plan import build_managed, build_network

    build_network.check_network(spec, facts)
    return NetworkSteps(
        launcher=(*build_network.check_names(spec), *build_managed.define(facts)),
        early=build_managed.enter(spec, facts),
        before_birth=build_network.join(spec),
        after_birth=build_network.connect(spec, facts),
        last=build_managed.check_firewall(facts),
        mounts=build_managed.resolver(spec, facts),
        awaited=build_network.await_links(spec),
    )
