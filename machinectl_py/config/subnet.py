"""IPv4 and IPv6 addresses in their subnets, as numbers; pure."""

from __future__ import annotations

import _socket

from machinectl_py.record import Record


class Subnet(Record):
    """An address and the length of its prefix."""

    version: int  # 4 or 6
    address: int
    prefix: int  # bits

    @property
    def host_bits(self) -> int:
        """How many bits number the addresses of the subnet."""
        return (32 if self.version == 4 else 128) - self.prefix

    @property
    def first(self) -> int:
        """The lowest address of the subnet."""
        return self.address >> self.host_bits << self.host_bits

    def at(self, number: int) -> str:
        """Return an address of the subnet by its number, from 0."""
        return write_address(self.version, self.first + number)

    def number_of(self, address: int) -> int:
        """Return the number of an address; it is outside if that is negative or too large."""
        return address - self.first

    def holds(self, number: int) -> bool:
        """Say whether a host may have the address of a number: not the first, nor the last."""
        return 0 < number < (1 << self.host_bits) - 1

    def overlaps(self, other: Subnet) -> bool:
        """Say whether an address is in both."""
        bits = max(self.host_bits, other.host_bits)
        same = self.version == other.version
        return same and self.address >> bits == other.address >> bits

    def __str__(self) -> str:
        """Return the usual text, "10.0.0.1/24"."""
        return f"{write_address(self.version, self.address)}/{self.prefix}"


def read_address(text: str) -> tuple[int, int]:
    """Return version and number of an address.

    Raises:
        ValueError: it is none.
    """
    version, family = (6, _socket.AF_INET6) if ":" in text else (4, _socket.AF_INET)
    try:
        return version, int.from_bytes(_socket.inet_pton(family, text), "big")
    except OSError:
        raise ValueError("an IP address") from None


def usual_address(text: str) -> str:
    """Return an address in its usual form.

    Raises:
        ValueError: it is none.
    """
    return write_address(*read_address(text))


def write_address(version: int, number: int) -> str:
    """Return the usual text of an address."""
    family, size = (_socket.AF_INET6, 16) if version == 6 else (_socket.AF_INET, 4)
    return _socket.inet_ntop(family, number.to_bytes(size, "big"))


def read_subnet(text: str) -> Subnet:
    """Return the subnet of ADDRESS[/PREFIX], by default of the address alone.

    Raises:
        ValueError: it is none.
    """
    address, slash, length = text.partition("/")
    version, number = read_address(address)
    bits = 32 if version == 4 else 128
    if slash and not (length.isascii() and length.isdigit() and int(length) <= bits):
        raise ValueError("ADDRESS/PREFIX, such as 10.0.0.1/24")
    return Subnet(version=version, address=number, prefix=int(length) if slash else bits)
