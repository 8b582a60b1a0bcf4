"""What the network of a machine finds on this host, probed before planning."""

from __future__ import annotations

from machinectl_py.config.managed_network import DEFAULT, ManagedNetwork
from machinectl_py.kernel import nft
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES, own_effective_set
from machinectl_py.kernel.namespaces import is_network_namespace, owns_network
from machinectl_py.kernel.rtnl import index_of
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
    is_defined: bool = False  # it is not merely proposed
    dnsmasq: bool = False  # is installed; not looked for without a managed network


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
    moved = {pair.host for pair in network.interfaces}
    wanted = {network.bridge, *(pair.host for pair in (*network.macvlan, *network.ipvlan))}
    missing = (name for name in wanted - moved if name and not index_of(name))
    if network.kind == "host":
        return NetworkFacts()
    admin = bool(own_effective_set() >> CAPABILITY_NAMES.index("CAP_NET_ADMIN") & 1)
    found = NetworkFacts(
        may_set_up=admin,
        may_connect=admin and owns_network(),
        missing=tuple(sorted(missing)),
        namespace=_namespace(network),
        nft=bool((network.ports or network.managed) and nft.find()),
    )
    return _with_managed(found, network.managed, host_id) if network.managed else found


def _with_managed(found: NetworkFacts, name: str, host_id: str) -> NetworkFacts:
    from machinectl_py.plan.managed import dnsmasq
    from machinectl_py.plan.managed.definitions import find_network

    managed, proposed = find_network(name), None
    if managed is None and name == DEFAULT:
        from machinectl_py.plan.managed.propose import propose_network, taken_subnets

        proposed = propose_network(name, host_id, taken_subnets())
        # Who was faster may have its subnets among those that are taken.
        managed = find_network(name)
    return found.replace(
        managed=managed or proposed, is_defined=bool(managed), dnsmasq=bool(dnsmasq.find())
    )


def _namespace(network: NetworkSpec) -> NamespaceState:
    if network.kind != "path":
        return ""
    try:
        return "ok" if is_network_namespace(network.namespace_path) else "other"
    except PermissionError:
        return "hidden"
    except OSError:
        return "missing"
