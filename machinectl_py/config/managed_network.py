"""The definition of a managed network, and the file that holds it."""

from __future__ import annotations

from machinectl_py.config.subnet import Subnet, read_subnet
from machinectl_py.errors import ConfigError
from machinectl_py.record import Record

DEFAULT = "default"  # the network of --network without a name
_SECTION = "Network"
_KEYS = ("Bridge", "IPv4", "IPv6", "NAT")
# A subnet has at least one address besides that of the bridge, its first and its last.
_PREFIXES = {4: (8, 29), 6: (48, 120)}
_LABEL_MAX = 63  # RFC 1035


class ManagedNetwork(Record):
    """A network that pymachine makes and serves, as defined."""

    name: str  # a label of the DNS: it is the domain, too
    bridge: str
    ipv4: str = ""  # of the bridge, with the prefix's length; "" is none
    ipv6: str = ""
    nat: bool = True

    def subnets(self) -> tuple[Subnet, ...]:
        """Return the subnets, with the bridge's addresses."""
        return tuple(read_subnet(text) for text in (self.ipv4, self.ipv6) if text)

    def gateways(self) -> tuple[str, ...]:
        """Return the bridge's addresses: the machines' routers and resolvers."""
        return tuple(text.partition("/")[0] for text in (self.ipv4, self.ipv6) if text)


def check_name(text: str) -> str:
    """Return a valid name of a network.

    Raises:
        ValueError: it is none.
    """
    inner = text.replace("-", "")
    plain = inner.isascii() and inner.isalnum() and text == text.lower()
    if not plain or text[0] == "-" or text[-1] == "-" or len(text) > _LABEL_MAX:
        raise ValueError("the name of a network: a-z, 0-9 and -")
    return text


def read_subnet_of(version: int, text: str) -> str:
    """Return the address of a bridge with its subnet in the usual form; "" of "no".

    Raises:
        ValueError: it is none, or of no use.
    """
    if text == "no":
        return ""
    least, most = _PREFIXES[version]
    subnet = read_subnet(text)
    if subnet.version != version or not least <= subnet.prefix <= most:
        raise ValueError(f"ADDRESS/PREFIX of IPv{version} with a prefix of {least} to {most} bits")
    if not subnet.holds(subnet.number_of(subnet.address)):
        raise ValueError(f"an address of a host in the subnet, such as {subnet.at(1)}")
    return str(subnet)


def parse_definition(name: str, data: bytes, path: str, default_bridge: str) -> ManagedNetwork:
    """Return the network that a file defines.

    Args:
        name: of the network.
        data: of the file.
        path: of the file, for errors.
        default_bridge: its bridge if the file names none.

    Raises:
        ConfigError: it is not valid; the line says where.
    """
    from machinectl_py.config.network_values import interface
    from machinectl_py.config.nspawn_file import parse
    from machinectl_py.config.values import boolean

    def refuse(where: str, line: int, problem: str) -> None:
        raise ConfigError(f"{where}:{line}: {problem}")

    network = ManagedNetwork(name=name, bridge=default_bridge)
    for entry in parse(data, path, refuse):
        if entry.section != _SECTION or entry.key not in _KEYS:
            if not entry.section.startswith("X-"):
                refuse(path, entry.line, f"{entry.key}= in [{entry.section}] is not known")
            continue
        try:
            if entry.key == "Bridge":
                network = network.replace(bridge=interface(entry.value))
            elif entry.key == "NAT":
                network = network.replace(nat=boolean(entry.value))
            else:
                value = read_subnet_of(int(entry.key[-1]), entry.value)
                network = network.replace(**{entry.key.lower(): value})
        except ValueError as error:
            refuse(path, entry.line, f"{entry.key}={entry.value}: expected {error}")
    if not network.subnets():
        raise ConfigError(f"{path}: the network has neither IPv4= nor IPv6=")
    return network


def write_definition(network: ManagedNetwork) -> str:
    """Return the content of the file that defines a network."""
    lines = (
        f"[{_SECTION}]",
        f"Bridge={network.bridge}",
        f"IPv4={network.ipv4 or 'no'}",
        f"IPv6={network.ipv6 or 'no'}",
        f"NAT={'yes' if network.nat else 'no'}",
    )
    return "\n".join(lines) + "\n"
