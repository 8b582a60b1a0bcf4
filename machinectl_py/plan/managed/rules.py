"""The table of nftables that joins managed networks to the world, and keeps them apart; pure."""

from __future__ import annotations

from machinectl_py.plan.managed.filter_rules import jumps_of_ip, set_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.plan.managed.members import Member, Up

TABLE = "inet pymachine-network"


def render(ups: Iterable[Up], members: Iterable[Member]) -> str:
    """Return the transaction that replaces the table by one for these; by none if there is none.

    Args:
        ups: the networks that are up here.
        members: the machines in them.
    """
    ups = tuple(ups)
    chains, to_host, forwarded = jumps_of_ip(ups, members)
    networks = sorted((up.network for up in ups), key=lambda network: network.name)
    start = f"add table {TABLE}\ndelete table {TABLE}\n"
    if not networks:
        return start
    hidden = [network for network in networks if network.nat]
    within = (f'"{network.bridge}" . "{network.bridge}"' for network in networks)
    parts = (
        set_of("bridges", "ifname", (f'"{network.bridge}"' for network in networks)),
        set_of("hidden", "ifname", (f'"{network.bridge}"' for network in hidden)),
        set_of("within", "ifname . ifname", within),
        chains,
        _FORWARD.format(to_host=to_host, forwarded=forwarded),
        _masquerading(hidden),
    )
    return f"{start}table {TABLE} {{\n{''.join(parts)}}}\n"


# From one port of a bridge to another packets come here only with br_netfilter.
_FORWARD = """\
  chain input {{
    type filter hook input priority 0
{to_host}  }}
  chain forward {{
    type filter hook forward priority 0
{forwarded}    oifname @bridges jump to-machines
  }}
  chain to-machines {{
    ct state established,related accept
    ct status dnat accept
    iifname . oifname @within accept
    iifname @bridges drop
    oifname @hidden drop
  }}
"""


def _masquerading(networks: Iterable[ManagedNetwork]) -> str:
    lines = []
    for network in networks:
        for subnet in network.subnets():
            family = "ip" if subnet.version == 4 else "ip6"
            net = f"{subnet.at(0)}/{subnet.prefix}"
            lines.append(
                f'    {family} saddr {net} {family} daddr != {net} oifname != "{network.bridge}"'
                " masquerade\n"
            )
    head = "  chain postrouting {\n    type nat hook postrouting priority 100\n"
    return f"{head}{''.join(lines)}  }}\n"
