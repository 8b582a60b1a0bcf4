"""Machines in several managed networks, by real traffic; entered and left while they run, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.hosts.overlay import private_copy
from tests.integration.networks import run, verb
from tests.integration.test_ports import booted, reached, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft"),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="needs dnsmasq"),
]


@contextmanager
def server(host, tree, name: str, *options: str) -> Iterator[object]:
    """Run a machine of its own root that answers on port 80."""
    with private_copy(tree) as root, booted(host, root, name, *options) as machine:
        machine.serve(80)
        yield machine


@pytest.fixture
def colours(host):
    """Two networks."""
    verb(host, "network", "create", "red", "--ipv4=10.8.1.1/24", "--ipv6=fd81::1/64")
    verb(host, "network", "create", "blue", "--ipv4=10.8.2.1/24", "--ipv6=fd82::1/64")


def leased(host, network: str, machine: str) -> list[str]:
    """Return the addresses of a machine in a network, as the host tells them."""
    told = json.loads(verb(host, "network", "show", network, "--json=short").stdout)[0]
    return next(one["addresses"] for one in told["leases"] if one["machine"] == machine)


def inside(machine, *words: str) -> list[str]:
    return ["nsenter", f"--target={machine.inside.pid}", "--net", "--mount", *words]


def resolves(machine, name: str) -> list[str]:
    """Return the addresses that a name has in a machine."""
    words = inside(machine, "getent", "ahosts", name)
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return sorted({line.split()[0] for line in done.stdout.splitlines()})


def test_a_machine_of_two_networks_is_reached_in_both_and_joins_them_not(
    host, colours, pristine_tree, name
):
    red, blue, both = f"{name}r", f"{name}b", f"{name}m"
    with (
        server(host, pristine_tree, red, "--network=red") as one,
        server(host, pristine_tree, blue, "--network=blue") as other,
        server(host, pristine_tree, both, "--network=red", "--network=blue") as middle,
    ):
        assert set(middle.inside.links()) == {"host0", "pm-blue"}
        for machine, network in ((one, "red"), (other, "blue")):
            for address in leased(host, network, both):
                assert reached(machine.inside, address, 80).startswith(f"{both} ")
            for address in leased(host, network, machine.name):
                assert reached(middle.inside, address, 80).startswith(f"{machine.name} ")
        for address in leased(host, "blue", blue):
            assert reached(one.inside, address, 80) == ""
        # Names of both, and without the network's, too.
        assert resolves(middle, f"{blue}.blue") == sorted(leased(host, "blue", blue))
        assert resolves(middle, blue) == sorted(leased(host, "blue", blue))
        assert resolves(middle, red) == sorted(leased(host, "red", red))
        assert resolves(one, both) == sorted(leased(host, "red", both))
        assert resolves(other, both) == sorted(leased(host, "blue", both))


def test_it_cannot_take_an_address_in_the_further_network(host, colours, pristine_tree, name):
    with (
        server(host, pristine_tree, f"{name}b", "--network=blue") as target,
        server(host, pristine_tree, f"{name}m", "--network=red", "--network=blue") as thief,
    ):
        address, own = leased(host, "blue", target.name)[0], leased(host, "blue", thief.name)[0]
        assert reached(thief.inside, address, 80) == f"{target.name} {own}"
        thief.inside.ip("address add 10.8.2.252/24 dev pm-blue")
        thief.inside.ip(f"route replace {address} dev pm-blue src 10.8.2.252")
        assert reached(thief.inside, address, 80) == ""
        run(*host.enter("nft", "delete", "table", "bridge", "pymachine-network"))
        stolen = f"{target.name} 10.8.2.252"
        wait_for(lambda: reached(thief.inside, address, 80) == stolen, "control")


def test_the_default_network_may_be_the_second(host, colours, tree, name):
    words = ("run", "-D", str(tree), "-M", name, "--network=red", "--network=default")
    done = verb(host, *words, "--", "ip", "-br", "link")
    assert "pm-default" in done.stdout
    assert done.stderr == ""


def test_a_network_that_is_missing_is_told(host, colours, tree, name):
    words = ("run", "-D", str(tree), "-M", name, "--network=red", "--network=green", "/bin/true")
    done = verb(host, *words, check=False)
    assert done.returncode
    assert "There is no network 'green'" in done.stderr
    assert run(*host.enter("ip", "-br", "link", "show", "type", "bridge")) == ""
