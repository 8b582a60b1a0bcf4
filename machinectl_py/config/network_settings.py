"""Settings of the link to one of several managed networks, from text and back; [NETWORK:]VALUE.

A value is a pair: the network, "" for the first, and what is set of the link to it.
"""

from __future__ import annotations

from machinectl_py.config import network_values
from machinectl_py.config.managed_network import check_name
from machinectl_py.config.spec import FurtherLink
from machinectl_py.config.subnet import usual_address
from machinectl_py.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Value = TypeVar("Value", int, str)


def address(text: str) -> tuple[tuple[str, str], ...]:
    """Return the address of [NETWORK:]ADDRESS.

    What is an address as a whole is of the first network: "fade:fd01::5" is. In brackets an IPv6
    address has no such doubt.

    Raises:
        ValueError: it is not valid.
    """
    try:
        return (("", usual_address(text)),)
    except ValueError:
        network, colon, rest = text.partition(":")
        if not colon:
            raise
    if rest.startswith("[") and rest.endswith("]"):
        rest = rest[1:-1]
    return ((check_name(network), usual_address(rest)),)


def rate(text: str) -> tuple[tuple[str, int], ...]:
    """Return the bits a second of [NETWORK:]BITS.

    Raises:
        ValueError: it is not valid.
    """
    network, colon, rest = text.rpartition(":")
    return ((check_name(network) if colon else "", network_values.rate(rest)),)


def from_address(setting: tuple[str, str]) -> str:
    """Return the text of it."""
    network, text = setting
    if not network:
        return text
    return f"{network}:[{text}]" if ":" in text else f"{network}:{text}"


def from_rate(setting: tuple[str, int]) -> str:
    """Return the text of it."""
    network, bits = setting
    text = network_values.from_rate(bits)
    return f"{network}:{text}" if network else text


def by_network(
    option: str, settings: tuple[tuple[str, Value], ...], networks: tuple[str, ...]
) -> dict[str, Value]:
    """Return what is said last of each network.

    Args:
        option: that said it, for errors.
        settings: pairs.
        networks: of the machine, the first of them first; it may be "", a link to none.

    Raises:
        ConfigError: one is of a network that the machine is not in.
    """
    found = {network or networks[0]: value for network, value in settings}
    for network in found:
        if network not in networks:
            raise ConfigError(
                f"{option} names the network '{network}', which the machine is not in",
                f"Add --network={network}.",
            )
    return found


def further_links(
    attached: list[str], fixed: dict[str, str], rate_in: dict[str, int], rate_out: dict[str, int]
) -> tuple[FurtherLink, ...]:
    """Return what is set of the links to further networks, of those where anything is."""
    return tuple(
        FurtherLink(
            network=name,
            fixed=fixed.get(name, ""),
            rate_in=rate_in.get(name, 0),
            rate_out=rate_out.get(name, 0),
        )
        for name in attached
        if name in fixed or name in rate_in or name in rate_out
    )
