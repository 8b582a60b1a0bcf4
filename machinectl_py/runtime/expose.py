"""Leads the forwarded ports of a machine to the addresses that it has now."""

from __future__ import annotations

import os
import sys

from machinectl_py.errors import PymachineError
from machinectl_py.kernel.process import close_range
from machinectl_py.network.addresses import addresses
from machinectl_py.plan.port_claims import Claims

_RT_SCOPE_LINK = 253  # <linux/rtnetlink.h>


def aim(claims: Claims, name: str, leader: int) -> None:
    """Lead the ports of a machine to the first addresses of global scope that it has.

    Raises:
        FileNotFoundError: it has ended.
        OSError: the rules cannot be loaded.
    """
    found = [one for one in addresses(leader) if one.scope < _RT_SCOPE_LINK]
    ipv4 = next((one.address for one in found if ":" not in one.address), "")
    ipv6 = next((one.address for one in found if ":" in one.address), "")
    claims.aim(name, ipv4, ipv6)


def main() -> None:
    """Look at the machine of argv[1], whose leader is argv[2]."""
    close_range(3)  # the supervisor's locks are not ours to hold
    name, leader = sys.argv[1], int(sys.argv[2])
    try:
        # One at a time from the look to the rules, so that the last look wins.
        with Claims() as claims:
            aim(claims, name, leader)
    except FileNotFoundError:  # the machine has ended
        pass
    except (OSError, PymachineError) as error:
        os.write(2, f"pymachine: The ports of '{name}' are not forwarded: {error}\n".encode())
