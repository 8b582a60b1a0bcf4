"""The numbers of machines in a network; pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.managed_network import ManagedNetwork

MOST = 1 << 16  # numbers of a network; a bridge has fewer ports


def is_usable(network: ManagedNetwork, number: int) -> bool:
    """Say whether a number is that of an address in each subnet, and not the bridge's."""
    return 0 < number < MOST and all(
        subnet.holds(number) and subnet.first + number != subnet.address
        for subnet in network.subnets()
    )
