"""Subnets for a new network that are nobody's here."""

from __future__ import annotations

from machinectl_py.config.managed_network import ManagedNetwork
from machinectl_py.config.subnet import Subnet, read_subnet
from machinectl_py.errors import ConflictError
from machinectl_py.plan.managed.definitions import bridge_name, networks
from machinectl_py.plan.siphash import siphash24

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_KEY = bytes.fromhex("6d1f0f2f9f6a4a2b8a2c8a5a5be1f9c4")
# RFC 1918: of the largest block, without its ends, where people and clouds begin to number.
_IPV4_BLOCK, _IPV4_PREFIX = "10.0.0.0", 24
_LOWEST, _COUNT = 64 << 8, 128 << 8  # 10.64.0.0 to 10.191.255.0
_ULA, _IPV6_PREFIX = 0xFD, 64  # RFC 4193: 40 random bits, then 16 of the subnet
_TRIES = 4096


def propose_network(
    name: str,
    host_id: str,
    taken: Iterable[Subnet],
    *,
    ipv4: str | None = None,
    ipv6: str | None = None,
    nat: bool = True,
) -> ManagedNetwork:
    """Return a network that overlaps with nothing.

    Args:
        name: of the network.
        host_id: the host's machine ID; two callers with the same propose the same.
        taken: what it may not overlap with.
        ipv4: the bridge's address with its prefix, "" for none; None picks one.
        ipv6: idem.
        nat: whether it is hidden from the world.

    Raises:
        ConflictError: nothing is free, or what was asked for is not.
    """
    taken = tuple(taken)
    chosen = []
    for version, wanted in ((4, ipv4), (6, ipv6)):
        if wanted is None:
            chosen.append(_pick(version, name, host_id, taken))
            continue
        if wanted and (other := _overlapping(read_subnet(wanted), taken)):
            raise ConflictError(f"The subnet {wanted} overlaps with {other}, which is in use here")
        chosen.append(wanted)
    return ManagedNetwork(
        name=name, bridge=bridge_name(name), ipv4=chosen[0], ipv6=chosen[1], nat=nat
    )


def _pick(version: int, name: str, host_id: str, taken: tuple[Subnet, ...]) -> str:
    for candidate in _candidates(version, f"{host_id} {name}"):
        if not _overlapping(candidate, taken):
            return str(candidate)
    raise ConflictError(f"No subnet of IPv{version} is free here", "Give one by --ipv4= or --ipv6=")


def _candidates(version: int, seed: str) -> Iterator[Subnet]:
    start = siphash24(f"{version} {seed}".encode(), _KEY)
    for step in range(_TRIES):
        if version == 4:
            number = _LOWEST + (start + step) % _COUNT
            address = read_subnet(_IPV4_BLOCK).address | number << 8 | 1
            yield Subnet(version=4, address=address, prefix=_IPV4_PREFIX)
        else:
            address = _ULA << 120 | (start + step & (1 << 40) - 1) << 80 | 1
            yield Subnet(version=6, address=address, prefix=_IPV6_PREFIX)


def _overlapping(subnet: Subnet, taken: tuple[Subnet, ...]) -> Subnet | None:
    return next((other for other in taken if subnet.overlaps(other)), None)


def taken_subnets() -> tuple[Subnet, ...]:
    """Return what is routed from here, the resolvers, and the subnets of other networks.

    Raises:
        OSError: the kernel does not tell its routes.
        ConfigError: another network's definition is not valid.
    """
    from machinectl_py.kernel.rtnl import destinations

    found = [read_subnet(text) for text in destinations()]
    # To have no default route is to reach nothing: it takes no subnet.
    found = [subnet for subnet in found if subnet.prefix]
    found += [subnet for network in networks() for subnet in network.subnets()]
    return (*found, *_resolvers())


def _resolvers() -> Iterator[Subnet]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return
    for words in lines:
        if len(words) > 1 and words[0] == "nameserver":
            try:
                yield read_subnet(words[1].partition("%")[0])
            except ValueError:
                continue
