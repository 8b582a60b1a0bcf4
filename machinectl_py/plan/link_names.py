"""Names and addresses of links, the same for a machine at each start, and as systemd-nspawn's.

So .network files for ve-*, vb-* and vz-* match, and a lease of an address is found again.
"""

from __future__ import annotations

from machinectl_py.plan.siphash import siphash24

# The keys of systemd-nspawn, src/nspawn/nspawn-network.c.
HOST_KEY = bytes.fromhex("1a376fc746ec450bada3d53106605db1")
INSIDE_KEY = bytes.fromhex("c3c4f919b557b21ce6cf1427039ceea2")
EXTRA_HOST_KEY = bytes.fromhex("48c7f6b7ea9d4c9eb728d4de91d5bf66")
EXTRA_INSIDE_KEY = bytes.fromhex("af501761cef94d35840d2b2054bece59")
MACVLAN_KEY = bytes.fromhex("00136dbc66834481bb0cf9511f24a66f")
# Ours: of the bridges of managed networks.
BRIDGE_KEY = bytes.fromhex("a2c1e0f95b7d4a3e8f60d2b4c6a81357")
_NAME_KEY = bytes.fromhex("e190a404a8ef4b518cccc33a9f11fca2")

_NAME_MAX = 15  # IFNAMSIZ - 1 of <linux/if.h>
_KEPT = 11  # characters of a name too long, before its hash
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def short_name(name: str) -> str:
    """Return a name that the kernel takes: itself, or its beginning and 24 bits of its hash."""
    if len(name) <= _NAME_MAX:
        return name
    number = siphash24(name.encode(), _NAME_KEY)
    return name[:_KEPT] + "".join(_BASE64[number >> shift & 63] for shift in (18, 12, 6, 0))


def stable_address(host_id: str, machine: str, key: bytes, index: int = 0) -> str:
    """Return a link-layer address of local assignment, as in "02:00:00:00:00:01".

    Args:
        host_id: the host's machine ID; with "" the kernel chooses, and "" is returned.
        machine: the name of the machine.
        key: of the kind of link.
        index: among the links of the machine that are of this kind.
    """
    if not host_id:
        return ""
    data = bytes.fromhex(host_id) + machine.encode()
    data += index.to_bytes(8, "little") if index else b""
    octets = bytearray(siphash24(data, key).to_bytes(8, "little")[:6])
    octets[0] = octets[0] & 0xFE | 0x02  # not of a group; of local assignment: IEEE 802
    return octets.hex(":")
