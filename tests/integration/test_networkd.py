"""A booted machine whose systemd-networkd gets its address from that of the host, on its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.hosts.apart import systemd_runs
from tests.integration.networks import Network
from tests.integration.test_ports import forwarded, listening, reached
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    # On any other host it would be the user's network that we change.
    pytest.mark.skipif(
        not systemd_runs() or not Path("/run/host/container-manager").exists(),
        reason="needs a container host with systemd",
    ),
]


def run(*command: object) -> str:
    words = list(map(str, command))
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def networkd():
    run("systemctl", "start", "systemd-networkd")
    yield Network(os.getpid())
    run("systemctl", "stop", "systemd-networkd", "systemd-networkd.socket")


@pytest.fixture
def networked_tree(tree):
    run("systemctl", f"--root={tree}", "enable", "systemd-networkd")
    return tree


@pytest.mark.parametrize("option", ["--network-veth", "--network-zone=lan"])
def test_a_forwarded_port_waits_for_the_lease(networkd, pymachine, networked_tree, machine, option):
    done = pymachine("boot", "-D", networked_tree, "-M", machine, option, "--port=8080:80")
    assert done.returncode == 0, done
    try:
        leader = int(pymachine("show", machine, "-p", "Leader", "--value").stdout)

        def story():
            inside = Network(leader).enter("ip", "address")
            return f"{run('networkctl', '--no-pager', 'list')}{run(*inside)}{forwarded(networkd)}"

        wait_for(lambda: "6 . 8080 : " in forwarded(networkd), story)
        with listening(Network(leader), machine, 80):
            assert reached(networkd, "127.0.0.1", 8080).startswith(f"{machine} ")
    finally:
        pymachine("poweroff", machine)
    assert forwarded(networkd) == ""
    links = {
        link for link in os.listdir("/sys/class/net") if link.startswith(("ve-", "vb-", "vz-"))
    }
    assert links == set()
