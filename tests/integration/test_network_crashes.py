"""Supervisors that are killed at each step of a network, and at any moment: nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.kernel.locks import is_locked
from machinectl_py.layout import lock_path
from tests.conftest import COMMAND
from tests.integration.networks import verb
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MANAGED = (
    *("--network", "--network=red", "--network-rate-in=1G", "--network-rate-out=1G"),
    *("--port=8080:80", "--deny=out:192.0.2.9", "--network-veth-extra=x0:lan0"),
)
ZONE = ("--network-zone=crash", "--network-interface=away0", "--network-macvlan=base0")
OPTIONS = {"managed": MANAGED, "zone": ZONE}


@pytest.fixture
def links(host):
    """What the options need of a host."""
    verb(host, "network", "create", "red")
    host.ip("link add away0 type veth peer name base0")
    host.ip("link set base0 up")
    yield
    host.ip("link delete base0")


def start(host, tree, name, *options, fault: str = "") -> subprocess.Popen[bytes]:
    words = ("run", "-D", tree, "-M", name, "--console=pipe", *options, "/bin/sleep", "infinity")
    return subprocess.Popen(
        host.enter(*COMMAND, *words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYMACHINE_TEST_FAIL": fault},
    )


def left(host) -> tuple[object, ...]:
    """Return what a machine may have left."""
    table = subprocess.run(
        host.enter("nft", "list", "tables"), check=True, capture_output=True, text=True
    )
    served = any(serves(host, int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return table.stdout, host.links(), Path("/run/pymachine/members").exists(), served


def serves(host, pid: int) -> bool:
    """Say whether a process is a dnsmasq of this host's networks."""
    try:
        if Path(f"/proc/{pid}/comm").read_text() != "dnsmasq\n":
            return False
        return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(host.path).st_ino
    except OSError:  # it has ended
        return False


def mended(host, name, before) -> None:
    """Hold that the next verb, whichever, removes all that was left."""
    # Its last process, which ends with the one that was killed, may hold the lock for a moment yet.
    wait_for(lambda: not is_locked(lock_path(name)), "the lock")
    verb(host, "list")
    assert left(host) == before
    assert not Path("/run/pymachine/ports").exists()


@pytest.mark.parametrize("kind", OPTIONS)
def test_killed_at_each_step(host, links, tree, name, kind):
    before = left(host)
    labels = steps_of(host, tree, name, OPTIONS[kind])
    assert len(labels) >= {"managed": 11, "zone": 6}[kind], labels
    found = set()
    for label in labels:
        process = start(host, tree, name, *OPTIONS[kind], fault=f"{label}:kill")
        assert process.wait(timeout=60) == -signal.SIGKILL, label
        found |= {label} if left(host) != before else set()
        mended(host, name, before)
    assert len(found) > len(labels) // 2  # or there was nothing to mend


def steps_of(host, tree, name, options) -> list[str]:
    """Return the labels of the steps outside that are about the network."""
    words = ("plan", "-D", str(tree), "-M", name, *options, "--json=short")
    rows = json.loads(verb(host, *words).stdout)
    words = ("link", "network", "veth", "zone", "rate", "ports", "addresses", "firewall")
    return [
        row["name"]
        for row in rows
        if row["place"] != "inside" and any(word in row["name"] for word in words)
    ]


def test_killed_at_any_moment(host, links, tree, name):
    """At fifty moments of a start, evenly from its first to its last."""
    before = left(host)
    state = Path(f"/run/pymachine/machines/{name}/state.json")

    def is_up() -> bool:
        try:
            return json.loads(state.read_text())["phase"] == "running"
        except FileNotFoundError:
            return False

    begun = time.monotonic()
    process = start(host, tree, name, *MANAGED)
    wait_for(is_up, "no start")
    lasts = time.monotonic() - begun
    for number in range(50):
        process.kill()
        process.wait()
        mended(host, name, before)
        process = start(host, tree, name, *MANAGED)
        time.sleep(lasts * number / 50)
    process.kill()
    process.wait()
    mended(host, name, before)
