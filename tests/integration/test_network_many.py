"""A hundred machines on one bridge."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.integration.networks import Network, rules, run, verb
from tests.waiting import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

COUNT = 100
AT_ONCE = 8
# Connects to each address, and prints those where nobody answers, with why.
CALL = """
import socket, sys
for address in sys.argv[1:]:
    try:
        with socket.create_connection((address, 80), timeout=5) as client:
            assert client.recv(100) == b"all here"
    except OSError as error:
        print(address, error)
"""
# Answers on all addresses, in the namespace of each process of the command line.
SERVE = """
import ctypes, os, selectors, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
waiting = selectors.DefaultSelector()
for pid in sys.argv[1:]:
    with open(f"/proc/{pid}/ns/net") as namespace:
        assert libc.setns(namespace.fileno(), 0x40000000) == 0
    server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
    waiting.register(server, selectors.EVENT_READ)
print("bound", flush=True)
while True:
    for key, _ in waiting.select():
        client, _ = key.fileobj.accept()
        client.sendall(b"all here")
        client.close()
"""


def leader(name: str) -> int:
    try:
        state = json.loads(Path(f"/run/pymachine/machines/{name}/state.json").read_text())
    except FileNotFoundError:
        return 0
    return state["leader"] if state["phase"] == "running" else 0


def start(host: Network, root: Path, name: str) -> tuple[subprocess.Popen[str], float]:
    """Start a machine; return its supervisor, and how long that took."""
    options = ("--network", "--read-only", "--console=pipe", "--register=no")
    words = ("run", "-D", root, "-M", name, *options, "/bin/sleep", "infinity")
    begun = time.monotonic()
    process = subprocess.Popen(
        host.enter(*COMMAND, *words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: leader(name) or process.poll() is not None, "no start", 60)
    return process, time.monotonic() - begun


@contextmanager
def serving(pids: list[int]) -> Iterator[None]:
    """Have a server in the network of each."""
    command = ["/usr/bin/python3", "-c", SERVE, *map(str, pids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "bound\n"
            yield
        finally:
            server.kill()


def test_a_hundred_machines_of_a_network(host, pristine_tree, name):
    names = [f"{name}x{number}" for number in range(COUNT)]
    started: list[tuple[subprocess.Popen[str], float]] = []
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            started += pool.map(lambda one: start(host, pristine_tree, one), names)
        assert [one.poll() for one, _ in started] == [None] * COUNT
        leases = json.loads(verb(host, "network", "show", "default", "--json=short").stdout)[0]
        found = {one["machine"]: one["addresses"] for one in leases["leases"] if one["running"]}
        assert found.keys() == set(names)
        every = [address for addresses in found.values() for address in addresses]
        assert len(set(every)) == 2 * COUNT
        inside = Network(leader(names[0]))
        with serving([leader(one) for one in names]):
            # From one to all, and from outside of the bridge to all.
            for side in (inside, host):
                assert run(*side.enter("/usr/bin/python3", "-c", CALL, *every)) == ""
        last = [f"--target={leader(names[0])}", "--net", "--mount", "getent", "ahosts", names[-1]]
        assert set(found[names[-1]]) <= set(run("nsenter", *last).split())
        told = json.loads(verb(host, "network", "stats", "default", "--json=short").stdout)
        assert {one["machine"] for one in told} == set(names)
        assert all(one["sent_packets"] for one in told)
        # Not some for each machine: the last to come would wait longer than the first.
        assert rules(host).count(" drop\n") < 20
    finally:
        print([round(lasted, 2) for _, lasted in started])
        for process, _ in started:
            process.terminate()
        said = [process.communicate(timeout=60)[1] for process, _ in started]
    assert [text for text in said if text] == []
