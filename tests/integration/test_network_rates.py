"""How fast a machine may send and get, measured with real traffic."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

from machinectl_py.plan import link_names
from tests.integration.networks import HOST, verb
from tests.integration.test_ports import booted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SIZE = 2 << 20
# Sends SIZE bytes to each client, or takes as many, and then says so.
SERVER = """
import socket, sys
server = socket.create_server(("", 7000))
print("bound", flush=True)
while True:
    client, _ = server.accept()
    if client.recv(1) == b"g":
        client.sendall(bytes(int(sys.argv[1])))
    else:
        left = int(sys.argv[1])
        while left > 0:
            left -= len(client.recv(1 << 16))
        client.sendall(b"all")
    client.close()
"""
CLIENT = """
import socket, sys, time
size, way = int(sys.argv[3]), sys.argv[2]
server = socket.create_connection((sys.argv[1], 7000))
begun = time.monotonic()
if way == "get":
    server.sendall(b"g")
    while size > 0:
        size -= len(server.recv(1 << 16))
else:
    server.sendall(b"p" + bytes(size))
    server.recv(3)
print(time.monotonic() - begun)
"""


@contextmanager
def serving(side):
    with subprocess.Popen(
        side.enter("/usr/bin/python3", "-c", SERVER, SIZE), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "bound\n"
            yield
        finally:
            server.kill()


def megabits(side, way: str, server: str = HOST) -> float:
    """Return how fast a transfer goes."""
    done = subprocess.run(
        side.enter("/usr/bin/python3", "-c", CLIENT, server, way, SIZE),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return SIZE * 8 / 1e6 / float(done.stdout)


@pytest.mark.parametrize("options", [("--network",), ("--network-veth",)])
def test_each_direction_has_its_own_limit(host, tree, name, options):
    limits = ("--network-rate-in=20M", "--network-rate-out=10M")
    with booted(host, tree, name, *options, *limits) as machine, serving(host):
        if "--network-veth" in options:
            host.ip(f"address add 10.9.0.1/24 dev ve-{name}")
            host.ip(f"link set ve-{name} up")
            machine.inside.ip("address add 10.9.0.2/24 dev host0")
            machine.inside.ip("link set host0 up")
            machine.inside.ip("route add default via 10.9.0.1")
        assert 14 < megabits(machine.inside, "get") < 23
        assert 7 < megabits(machine.inside, "put") < 12


def test_one_alone(host, tree, name):
    with booted(host, tree, name, "--network", "--network-rate-out=10M") as machine, serving(host):
        assert megabits(machine.inside, "get") > 50
        assert 7 < megabits(machine.inside, "put") < 12


def test_each_network_has_its_own_limit(host, tree, name):
    """Also one that is entered later, and one of whose link the machine takes the place."""
    for number, network in enumerate(("red", "blue", "grey"), 1):
        verb(host, "network", "create", network, f"--ipv4=10.8.{number}.1/24", "--ipv6=no")
    options = ("--network=red", "--network=blue", "--network-rate-out=blue:10M")
    shaper = link_names.short_name(f"pi-{name}-grey")
    with booted(host, tree, name, *options) as machine, serving(host):
        verb(host, "network", "attach", name, "grey", "--rate-in=10M", "--rate-out=20M")
        assert shaper in host.links()
        assert megabits(machine.inside, "put", "10.8.1.1") > 50
        assert 7 < megabits(machine.inside, "put", "10.8.2.1") < 12
        assert megabits(machine.inside, "get", "10.8.2.1") > 50
        assert 14 < megabits(machine.inside, "put", "10.8.3.1") < 23
        assert 7 < megabits(machine.inside, "get", "10.8.3.1") < 12
        verb(host, "network", "detach", name, "grey")
        assert shaper not in host.links()
        verb(host, "network", "attach", name, "grey")
        assert megabits(machine.inside, "put", "10.8.3.1") > 50


def test_a_reboot_and_a_failing_step_leave_no_link(host, tree, name):
    verb(host, "boot", "-D", str(tree), "-M", name, "--network", "--network-rate-out=1G")
    assert f"pi-{name}" in host.links()
    verb(host, "reboot", name)
    verb(host, "poweroff", name)
    assert f"pi-{name}" not in host.links()


@pytest.mark.parametrize("rate", ["1", "ten", "1T", "40G", ""])
def test_what_is_no_rate_is_told(host, tree, name, rate):
    words = ("run", "-D", str(tree), "-M", name, "-n", f"--network-rate-in={rate}", "/bin/true")
    done = verb(host, *words, check=False)
    assert (done.returncode == 0) == (rate == "")
    assert rate == "" or "bits a second" in done.stderr
