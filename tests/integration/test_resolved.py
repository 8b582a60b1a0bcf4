"""The host finds machines by name: by systemd-resolved in a managed network, by nss-mymachines.

For a host of the tree "resolved": tests/hosts/host.py --tree=resolved. Its own network is used, as
systemd-resolved knows no other; that is nobody's but the tests'.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.hosts.overlay import private_copy
from tests.integration.test_ports import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        not Path("/run/systemd/resolve/io.systemd.Resolve").exists(), reason="needs resolved"
    ),
]


def run(*command: object, check: bool = True) -> str:
    words = list(map(str, command))
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def resolves(service: str, name: str) -> set[str]:
    """Return the addresses that a name service of the host knows."""
    told = run("getent", "-s", service, "ahosts", name, check=False)
    return {line.split()[0] for line in told.splitlines()}


@pytest.fixture
def lab(name):
    run(*COMMAND, "network", "create", "lab")
    yield json.loads(run(*COMMAND, "network", "show", "lab", "--json=short"))[0]
    run(*COMMAND, "network", "delete", "lab")


def test_the_host_knows_machines_by_name(pristine_tree, name, lab):
    with private_copy(pristine_tree) as root:
        booted = subprocess.run(
            [*COMMAND, "boot", "-D", root, "-M", name, "--network=lab"],
            check=True,
            capture_output=True,
            text=True,
        )
        try:
            assert "resolved" not in booted.stderr
            (network,) = json.loads(run(*COMMAND, "network", "show", "lab", "--json=short"))
            own = set(network["leases"][0]["addresses"])
            wait_for(lambda: own == resolves("dns", f"{name}.lab"), "resolved")
            # With the number of the link that leads there.
            told = {one.partition("%")[0] for one in resolves("mymachines", name)}
            assert own <= told
            shown = run("resolvectl", "status", "pm-lab")
            assert "~lab" in shown
            assert "-DefaultRoute" in shown
            # What is not of the network is not asked there.
            assert resolves("dns", "elsewhere.example") == set()
        finally:
            run(*COMMAND, "poweroff", name)
        assert resolves("dns", f"{name}.lab") == set()
        assert "pm-lab" not in run("resolvectl", "status")
