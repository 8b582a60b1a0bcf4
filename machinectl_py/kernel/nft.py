"""The packet filter's rules, by nft(8)."""

from __future__ import annotations

import os

from machinectl_py.codec import decode
from machinectl_py.kernel.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLACES = ("/usr/sbin/nft", "/usr/local/sbin/nft", "/sbin/nft", "/usr/bin/nft")


def find() -> str:
    """Return the path of nft, or "" where it is not installed."""
    return next((path for path in _PLACES if os.access(path, os.X_OK)), "")


def ruleset() -> list[dict[str, Any]]:
    """Return all tables, chains and rules, as objects of libnftables-json(5).

    Raises:
        OSError: nft is not installed, or refuses.
    """
    code, listed, said = Program((_need(), "--json", "list", "ruleset")).wait()
    try:
        found: list[dict[str, Any]] = decode(listed)["nftables"]
    except (ValueError, KeyError) as error:
        what = said.strip() or f"exit status {code}"
        raise OSError(22, f"nft: cannot list its rules: {what}") from error
    return found


def load(rules: str) -> None:
    """Carry out rules in one transaction: all of them, or none.

    Raises:
        OSError: nft is not installed, or refuses, with its first words.
    """
    Loading(rules).wait()


class Loading:
    """Rules that are being carried out: it is 10 ms and more that the kernel waits in."""

    def __init__(self, rules: str) -> None:
        """Begin.

        Raises:
            OSError: nft is not installed.
        """
        self._program = Program((_need(), "-f", "-"), rules)

    def wait(self) -> None:
        """Wait until they hold.

        Raises:
            OSError: nft refuses, with its first words.
        """
        code, _, said = self._program.wait()
        if code:
            first = said.strip().partition("\n")[0].removeprefix("/dev/stdin:")
            raise OSError(22, f"nft: {first or 'failed'}")


def _need() -> str:
    tool = find()
    if not tool:
        raise FileNotFoundError(2, "No such file or directory", "nft")
    return tool
