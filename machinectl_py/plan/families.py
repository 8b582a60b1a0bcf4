"""Address families by name; socket(2) and <linux/socket.h>."""

from __future__ import annotations

from machinectl_py.errors import ConfigError

# The position is the number.
_NAMES = (
    "UNSPEC UNIX INET AX25 IPX APPLETALK NETROM BRIDGE ATMPVC X25 INET6 ROSE DECnet NETBEUI"
    " SECURITY KEY NETLINK PACKET ASH ECONET ATMSVC RDS SNA IRDA PPPOX WANPIPE LLC IB MPLS CAN"
    " TIPC BLUETOOTH IUCV RXRPC ISDN PHONET IEEE802154 CAIF ALG NFC VSOCK KCM QIPCRTR SMC XDP"
    " MCTP"
)
FAMILIES = {f"AF_{name}": number for number, name in enumerate(_NAMES.split()) if number}
FAMILIES |= {"AF_LOCAL": 1, "AF_FILE": 1, "AF_ROUTE": 16}
NO_FAMILY = "none"  # with it alone, an allow-list allows none


def family_numbers(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the numbers of address families, each once, sorted.

    Raises:
        ConfigError: there is none of that name.
    """
    for name in names:
        if name not in FAMILIES and names != (NO_FAMILY,):
            raise ConfigError(
                f"There is no address family '{name}'",
                "Their names are as in socket(2), such as AF_INET; 'none' stands alone.",
            )
    return tuple(sorted({FAMILIES[name] for name in names if name != NO_FAMILY}))
