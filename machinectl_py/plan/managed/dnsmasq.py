"""What dnsmasq(8) is told of a network; pure, but for where the program is."""

from __future__ import annotations

import os

from machinectl_py.layout import NETWORKS_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.plan.managed.members import Member

PACKAGE = "dnsmasq-base"
_PLACES = ("/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq", "/sbin/dnsmasq", "/usr/bin/dnsmasq")
_LEASE_TIME = "1h"


def find() -> str:
    """Return the path of dnsmasq, or "" where it is not installed."""
    return next((path for path in _PLACES if os.access(path, os.X_OK)), "")


def directory(network: str) -> str:
    """Return where the files of a network's dnsmasq are."""
    return f"{NETWORKS_DIR}/{network}"


def files(
    network: ManagedNetwork, members: Iterable[Member], others: Iterable[ManagedNetwork] = ()
) -> dict[str, str]:
    """Return the content of each file by its name.

    Args:
        network: that is served.
        members: the machines in it.
        others: networks that some of these are in, too: who asks here may ask for their names.
    """
    members = sorted(members, key=lambda member: member.machine)
    return {
        "dnsmasq.conf": _configuration(network),
        "clients": "".join(_client(network, member) for member in members),
        "hosts": "".join(_host(network, member) for member in members),
        "servers": "".join(
            f"server=/{other.name}/{other.gateways()[0]}\n" for other in sorted(others, key=_name)
        ),
    }


def command(network: ManagedNetwork) -> tuple[str, ...]:
    """Return the command line; it goes into the background once it serves."""
    return (find(), f"--conf-file={directory(network.name)}/dnsmasq.conf")


def pid_file(network: str) -> str:
    """Return where it writes its PID."""
    return f"{directory(network)}/pid"


def _name(network: ManagedNetwork) -> str:
    return network.name


def _configuration(network: ManagedNetwork) -> str:
    own = directory(network.name)
    lines = [
        f"interface={network.bridge}",
        "except-interface=lo",
        "bind-dynamic",  # bridge's addresses alone, and no query that comes by another link
        f"pid-file={pid_file(network.name)}",
        f"dhcp-leasefile={own}/leases",
        # DNS: the members, and what the host's resolvers know.
        "no-hosts",
        f"addn-hosts={own}/hosts",
        f"domain={network.name}",
        f"local=/{network.name}/",
        f"servers-file={own}/servers",
        "domain-needed",
        "bogus-priv",
        # DHCP: members alone, by the names that we know them by.
        f"dhcp-hostsfile={own}/clients",
        "dhcp-ignore=tag:!known",
        "dhcp-ignore-names",
        "dhcp-authoritative",
    ]
    for subnet in network.subnets():
        if subnet.version == 4:
            lines.append(f"dhcp-range={subnet.at(0)},static,{_LEASE_TIME}")
            continue
        lines += [
            f"dhcp-range={subnet.at(0)},static,{subnet.prefix},{_LEASE_TIME}",
            "enable-ra",
            f"dhcp-option=option6:dns-server,[{network.ipv6.partition('/')[0]}]",
            f"dhcp-option=option6:domain-search,{network.name}",
        ]
    return "".join(f"{line}\n" for line in lines)


def _client(network: ManagedNetwork, member: Member) -> str:
    addresses = (
        address if ":" not in address else f"[{address}]" for address in member.addresses(network)
    )
    return f"{','.join((member.mac, *addresses))},{_LEASE_TIME}\n"


def _host(network: ManagedNetwork, member: Member) -> str:
    name = member.machine.lower()
    return "".join(
        f"{address} {name}.{network.name} {name}\n" for address in member.addresses(network)
    )
