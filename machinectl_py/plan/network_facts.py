"""What the network of a machine finds on this host, probed before planning."""

from __future__ import annotations

from machinectl_py.config.managed_network import DEFAULT, ManagedNetwork
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES, own_effective_set
from machinectl_py.kernel.namespaces import is_network_namespace, owns_network
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.config.spec import NetworkSpec

    NamespaceState = Literal["", "ok", "missing", "hidden", "other"]


class NetworkFacts(Record):
    """The host as far as links depend on it."""

    missing: tuple[str, ...] = ()  # links that the spec builds on, which this host does not have
    namespace: NamespaceState = ""  # what is at `namespace_path`; "" without one
    may_set_up: bool = True  # links in a network namespace of our making
    may_connect: bool = True  # …and in the one that we are in
    nft: bool = False  # is installed; not looked for without ports and managed networks
    managed: ManagedNetwork | None = None  # the managed network, as defined or proposed
    attached: tuple[ManagedNetwork, ...] = ()  # the others that it is in
    proposed: tuple[str, ...] = ()  # those of both that are not defined yet
    unknown: tuple[str, ...] = ()  # networks that are neither
    dnsmasq: bool = False  # is installed; not looked for without a managed network

    def networks(self) -> tuple[ManagedNetwork, ...]:
        """Return all managed networks of the machine, the first of them first."""
        return (*((self.managed,) if self.managed else ()), *self.attached)


def probe_network(network: NetworkSpec, host_id: str = "") -> NetworkFacts:
    """Look for what the machine will be connected with.

    But not for the links that are moved: a machine that was killed may have them yet.

    Args:
        network: what is wished.
        host_id: the host's machine ID.

    Raises:
        ConfigError: the definition of its managed network is not valid.
        ConflictError: the default network is not defined, and no subnet is free for it.
    """
    if network.kind == "host":
        return NetworkFacts()
    from machinectl_py.kernel import nft
    from machinectl_py.kernel.rtnl import index_of

    moved = {pair.host for pair in network.interfaces}
    wanted = {network.bridge, *(pair.host for pair in (*network.macvlan, *network.ipvlan))}
    missing = (name for name in wanted - moved if name and not index_of(name))
    admin = bool(own_effective_set() >> CAPABILITY_NAMES.index("CAP_NET_ADMIN") & 1)
    found = NetworkFacts(
        may_set_up=admin,
        may_connect=admin and owns_network(),
        missing=tuple(sorted(missing)),
        namespace=_namespace(network),
        nft=bool((network.ports or network.managed or network.attached) and nft.find()),
    )
    return _with_managed(found, network, host_id)


def _with_managed(found: NetworkFacts, network: NetworkSpec, host_id: str) -> NetworkFacts:
    """Return the facts with the managed networks."""
    names = (*((network.managed,) if network.managed else ()), *network.attached)
    if not names:
        return found
    from machinectl_py.plan.managed import dnsmasq

    known = {name: find_or_propose(name, host_id) for name in names}
    return found.replace(
        managed=known[network.managed][0] if network.managed else None,
        attached=tuple(one for name in network.attached if (one := known[name][0])),
        proposed=tuple(name for name in names if known[name][1]),
        unknown=tuple(name for name in names if known[name][0] is None),
        dnsmasq=bool(dnsmasq.find()),
    )


def find_or_propose(name: str, host_id: str) -> tuple[ManagedNetwork | None, bool]:
    """Return a network, None if there is none, and whether it is merely proposed.

    Raises:
        ConfigError: its definition is not valid.
        ConflictError: it is the default network, not defined, and no subnet is free for it.
    """
    from machinectl_py.plan.managed.definitions import find_network

    found = find_network(name)
    if found or name != DEFAULT:
        return found, False
    from machinectl_py.plan.managed.propose import propose_network, taken_subnets

    proposed = propose_network(name, host_id, taken_subnets())
    # Who was faster may have its subnets among those that are taken.
    found = find_network(name)
    return found or proposed, found is None


def _namespace(network: NetworkSpec) -> NamespaceState:
    if network.kind != "path":
        return ""
    try:
        return "ok" if is_network_namespace(network.namespace_path) else "other"
    except PermissionError:
        return "hidden"
    except OSError:
        return "missing"
