"""The packet filter's rules, by nft(8)."""

from __future__ import annotations

import os

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
    import json
    import subprocess

    tool = find()
    if not tool:
        raise FileNotFoundError(2, "No such file or directory", "nft")
    done = subprocess.run(
        [tool, "--json", "list", "ruleset"], capture_output=True, text=True, check=False
    )
    try:
        listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except (ValueError, KeyError) as error:
        raise OSError(22, f"nft: {done.stderr.strip() or 'cannot list its rules'}") from error
    return listed


def load(rules: str) -> None:
    """Carry out rules in one transaction: all of them, or none.

    Raises:
        OSError: nft is not installed, or refuses, with its first words.
    """
    import subprocess

    tool = find()
    if not tool:
        raise FileNotFoundError(2, "No such file or directory", "nft")
    done = subprocess.run(
        [tool, "-f", "-"], input=rules, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0].removeprefix("/dev/stdin:")
        raise OSError(22, f"nft: {said or 'failed'}")
