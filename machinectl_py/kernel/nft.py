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
    Loading(rules).wait()


class Loading:
    """Rules that are being carried out: it is 10 ms and more that the kernel waits in."""

    def __init__(self, rules: str) -> None:
        """Begin.

        Raises:
            OSError: nft is not installed.
        """
        import subprocess

        tool = find()
        if not tool:
            raise FileNotFoundError(2, "No such file or directory", "nft")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [tool, "-f", "-"], stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True
        )
        assert self._process.stdin
        try:
            self._process.stdin.write(rules)  # it reads all before it says anything
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.stdin = None  # or communicate() would use it

    def wait(self) -> None:
        """Wait until they hold.

        Raises:
            OSError: nft refuses, with its first words.
        """
        said = self._process.communicate()[1].strip().partition("\n")[0]
        if self._process.returncode:
            raise OSError(22, f"nft: {said.removeprefix('/dev/stdin:') or 'failed'}")
