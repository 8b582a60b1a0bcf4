"""Network namespaces for tests: the host's side, as commands in one see it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# They come and go with what the other end does.
_PASSING_FLAGS = {"LOWER_UP", "NO-CARRIER", "M-DOWN"}


class Network:
    """A network namespace of our own, in the place of the host's."""

    def __init__(self, pid: int) -> None:
        """Use the one of a process."""
        self.pid, self.path = pid, f"/proc/{pid}/ns/net"

    def enter(self, *command: object) -> list[str]:
        """Return a command line that runs a command in it."""
        return ["nsenter", f"--net={self.path}", *map(str, command)]

    def ip(self, words: str) -> None:
        """Run ip(8)."""
        subprocess.run(self.enter("ip", *words.split()), check=True, capture_output=True)

    def read(self, name: str) -> str:
        """Return a value below /proc/sys/net."""
        command = self.enter("cat", f"/proc/sys/net/{name}")
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, name: str, value: str) -> None:
        """Set a value below /proc/sys/net."""
        command = self.enter("/bin/sh", "-c", f"echo {value} >/proc/sys/net/{name}")
        subprocess.run(command, check=True, capture_output=True)

    def links(self) -> dict[str, dict[str, object]]:
        """Return what is lasting of its links, by name; without lo."""
        shown = subprocess.run(
            self.enter("ip", "-details", "-json", "link"),
            check=True,
            capture_output=True,
            text=True,
        )
        return facts(shown.stdout)


def facts(text: str) -> dict[str, dict[str, object]]:
    """Return what is lasting of the links that `ip -details -json link` told, without lo."""
    found = {}
    for link in json.loads(text):
        info = link.get("linkinfo", {})
        found[link["ifname"]] = {
            "address": link["address"],
            "flags": sorted(set(link["flags"]) - _PASSING_FLAGS),
            "alternative": sorted(link.get("altnames", [])),
            "kind": info.get("info_kind", ""),
            "mode": info.get("info_data", {}).get("mode", ""),
            "master": link.get("master", ""),
        }
    found.pop("lo")
    return found


@contextmanager
def network() -> Iterator[Network]:
    """Give a network namespace that ends with the test."""
    before = os.stat("/proc/self/ns/net").st_ino
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        deadline = time.monotonic() + 10
        while os.stat(f"/proc/{holder.pid}/ns/net").st_ino == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield Network(holder.pid)
    finally:
        holder.kill()
        holder.wait()
