"""Network namespaces for tests: the host's side, as commands in one see it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import COMMAND
from tests.waiting import wait_for

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
        wait_for(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino != before)
        yield Network(holder.pid)
    finally:
        holder.kill()
        holder.wait()


HOST, WORLD = "192.0.2.1", "192.0.2.2"
HOST6, WORLD6 = "2001:db8:2::1", "2001:db8:2::2"
_DIRECTORIES = (Path("/etc/pymachine/networks"), Path("/var/lib/pymachine/networks"))
_SWITCHES = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/out0/accept_ra")


def run(*command: object) -> str:
    words = list(map(str, command))
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def rules(side: Network) -> str:
    """Return all rules of nftables there."""
    return run(*side.enter("nft", "list", "ruleset"))


@contextmanager
def lone_host(world: Network) -> Iterator[Network]:
    """Give a host that is no router, with rules of its own, and a link to the world.

    No managed network may leave anything on it.
    """
    with network() as found:
        found.ip(f"link add out0 type veth peer name in0 netns {world.pid}")
        for side, link, address, address6 in (
            (found, "out0", HOST, HOST6),
            (world, "in0", WORLD, WORLD6),
        ):
            side.write(f"ipv6/conf/{link}/accept_dad", "0")  # its link-local is usable at once
            side.ip(f"address add {address}/24 dev {link}")
            side.ip(f"address add {address6}/64 dev {link} nodad")
            side.ip(f"link set {link} up")
        found.ip("link set lo up")
        run(*found.enter("nft", "add table inet users; add chain inet users mine"))
        before = (rules(found), found.links(), [found.read(name) for name in _SWITCHES])
        yield found
        assert (rules(found), found.links(), [found.read(name) for name in _SWITCHES]) == before
        assert not Path("/run/pymachine/members").exists()
        assert list(Path("/run/pymachine/networks").glob("*")) == []
        for directory in _DIRECTORIES:
            shutil.rmtree(directory, ignore_errors=True)


def verb(host, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a verb on the host."""
    return subprocess.run(
        host.enter(*COMMAND, *words), check=check, capture_output=True, text=True, timeout=60
    )
