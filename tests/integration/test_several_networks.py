"""Machines in several managed networks, by real traffic; entered and left while they run, too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.hosts.overlay import private_copy
from tests.hosts.trees import build
from tests.integration.networks import WORLD, WORLD6, run, verb
from tests.integration.test_ports import Machine, booted, listening, reached
from tests.waiting import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def server(host, tree, name: str, *options: str) -> Iterator[Machine]:
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


# While they run.


def pid_of(name: str, what: str = "leader") -> int:
    state = json.loads(Path(f"/run/pymachine/machines/{name}/state.json").read_text())
    return state[what]


def is_running_anew(name: str, before: int) -> bool:
    state = json.loads(Path(f"/run/pymachine/machines/{name}/state.json").read_text())
    return state["leader"] != before and state["phase"] == "running"


@contextmanager
def background(host, root, name: str, *options: str) -> Iterator[Machine]:
    """Boot a machine, and power it off."""
    verb(host, "boot", "-D", str(root), "-M", name, *options)
    try:
        machine = Machine(host, name)
        yield machine
        machine.servers.close()
    finally:
        verb(host, "poweroff", name, check=False)


@pytest.mark.parametrize("options", [("--network=red",), ("--network-veth",), ("-n", "-p", "9:9")])
def test_a_running_machine_enters_a_network_and_leaves_it(
    host, colours, pristine_tree, tree, name, options
):
    blue = f"{name}b"
    with (
        server(host, pristine_tree, blue, "--network=blue") as peer,
        background(host, tree, name, *options) as machine,
    ):
        before = machine.inside.links(), host.links()
        told = verb(host, "network", "attach", name, "blue").stderr
        assert told == f"Machine '{name}' is in the network 'blue', by its link pm-blue.\n"
        machine.serve(80)
        for address, own in zip(
            leased(host, "blue", blue), leased(host, "blue", name), strict=True
        ):
            assert reached(machine.inside, address, 80) == f"{blue} {own}"
            assert reached(peer.inside, own, 80).startswith(f"{name} ")
        assert resolves(peer, name) == sorted(leased(host, "blue", name))
        if "--network=red" in options:
            assert resolves(machine, f"{blue}.blue") == sorted(leased(host, "blue", blue))
        again = verb(host, "network", "attach", name, "blue", check=False)
        assert again.stderr.count("\n") == 1
        assert "is in the network 'blue' already" in again.stderr
        verb(host, "network", "detach", name, "blue")
        assert (machine.inside.links(), host.links()) == before
        assert resolves(peer, name) == []
        gone = verb(host, "network", "detach", name, "blue", check=False)
        assert f"Machine '{name}' is not in the network 'blue'" in gone.stderr


def test_an_address_of_one_s_own_in_each_network(host, colours, tree, name):
    verb(host, "network", "create", "grey", "--ipv4=10.8.3.1/24", "--ipv6=no")
    options = ("--network=red", "--network=blue", "--network-address=blue:fd82::63")
    with background(host, tree, name, *options) as machine:
        assert leased(host, "blue", name) == ["10.8.2.99", "fd82::63"]
        assert "10.8.2.99/24" in run(*machine.inside.enter("ip", "-o", "a", "show", "pm-blue"))
        for option, says in (
            ("--address=10.8.2.77", "subnets are 10.8.3.0/24"),
            ("--address=10.8.3.1", "is no address for a machine"),
            ("--address=red", "expected an IP address"),
            ("--rate-in=1", "bits a second"),
            ("--ipv4=no", "--ipv4 goes with 'network create' alone"),
        ):
            refused = verb(host, "network", "attach", name, "grey", option, check=False)
            assert refused.returncode
            assert says in refused.stderr
        verb(host, "network", "attach", name, "grey", "--address=10.8.3.77")
        assert leased(host, "grey", name) == ["10.8.3.77"]
        told = verb(host, "show", name, "--settings").stdout
        assert "Address=grey:10.8.3.77\n" in told
        assert "Address=blue:[fd82::63]\n" in told
        before = pid_of(name)
        verb(host, "reboot", name)
        wait_for(lambda: is_running_anew(name, before), "no reboot")
        inside = Machine(host, name).inside
        for link, address in (("pm-grey", "10.8.3.77/24"), ("pm-blue", "10.8.2.99/24")):
            assert address in run(*inside.enter("ip", "-o", "a", "show", link))


def test_the_last_to_leave_takes_the_network_down(host, colours, tree, name):
    with background(host, tree, name, "--network=red"):
        verb(host, "network", "attach", name)  # the default one, which is not defined yet
        assert "pm-default" in host.links()
        assert name in verb(host, "network", "list").stdout
        verb(host, "network", "detach", name)
        assert "pm-default" not in host.links()
        # Where it was booted into, too.
        verb(host, "network", "detach", name, "red")
        assert host.links().keys() == {"out0"}
        assert Machine(host, name).inside.links() == {}
        verb(host, "network", "attach", name, "red")
        assert Machine(host, name).inside.links().keys() == {"pm-red"}


def test_a_reboot_keeps_what_was_entered_and_not_what_was_left(host, colours, tree, name):
    with background(host, tree, name, "--network=red"):
        verb(host, "network", "attach", name, "blue")
        verb(host, "network", "attach", name, "default")
        verb(host, "network", "detach", name, "red")
        before, addresses = pid_of(name), leased(host, "blue", name)
        verb(host, "reboot", name)
        wait_for(lambda: is_running_anew(name, before), "no reboot")
        machine = Machine(host, name)
        assert machine.inside.links().keys() == {"pm-blue", "pm-default"}
        assert set(addresses) <= set(
            run(*machine.inside.enter("ip", "-o", "a")).replace("/", " ").split()
        )
        assert "pm-red" not in host.links()


def test_the_world_and_names_are_found_by_the_network_that_is_left(
    host, world, colours, pristine_tree, tree, name
):
    """Routes and resolver go from one network to the next, as machines enter and leave."""
    blue = f"{name}b"
    with (
        server(host, pristine_tree, blue, "--network=blue"),
        background(host, tree, name, "--private-network") as machine,
        listening(world, "world", 80),
    ):
        resolv_conf = Path(f"/proc/{machine.inside.pid}/root/etc/resolv.conf")
        resolv_conf.unlink(missing_ok=True)
        for words, file in (
            (("attach", "red"), "search red\nnameserver 10.8.1.1\nnameserver fd81::1\n"),
            (("attach", "blue"), "search red blue\nnameserver 10.8.1.1\nnameserver fd81::1\n"),
            (("detach", "red"), "search blue\nnameserver 10.8.2.1\nnameserver fd82::1\n"),
        ):
            verb(host, "network", words[0], name, words[1])
            assert resolv_conf.read_text() == file
            assert reached(machine.inside, WORLD, 80).startswith("world ")
            assert reached(machine.inside, WORLD6, 80).startswith("world ")
        assert resolves(machine, blue) == sorted(leased(host, "blue", blue))
        verb(host, "network", "detach", name, "blue")
        assert resolv_conf.read_text() == ""
        # What somebody else wrote is theirs, and a link may lead anywhere.
        resolv_conf.write_text("nameserver 192.0.2.53\n")
        verb(host, "network", "attach", name, "red")
        assert resolv_conf.read_text() == "nameserver 192.0.2.53\n"
        resolv_conf.unlink()
        resolv_conf.symlink_to("/etc/stolen")
        verb(host, "network", "attach", name, "blue")
        assert not Path(f"/proc/{machine.inside.pid}/root/etc/stolen").exists()


@pytest.fixture(scope="module")
def resolved_tree():
    """A tree with systemd-resolved, which nobody writes to; a container host has it ready made."""
    return build("resolved")


@pytest.mark.parametrize("options", [(), ("--private-users=no",)])
def test_the_machine_s_own_systemd_resolved_follows(
    host, colours, pristine_tree, resolved_tree, name, options
):
    """Its drop-in is written and read again, unless somebody else wrote it."""
    drop_in = "/run/systemd/resolved.conf.d/pymachine.conf"

    def asks(what: str) -> set[str]:
        """Return the servers or domains of no link, whose order is resolved's own."""
        told = verb(host, "exec", name, "--", "resolvectl", what, "--no-pager").stdout
        return set(told.splitlines()[0].removeprefix("Global:").split())

    with (
        server(host, pristine_tree, f"{name}b", "--network=blue") as peer,
        private_copy(resolved_tree) as root,
        background(host, root, name, "--private-network", *options) as machine,
    ):
        verb(host, "exec", name, "--", "systemctl", "start", "systemd-resolved")
        assert asks("dns") == set()
        for act, network, servers, domains in (
            ("attach", "red", "10.8.1.1 fd81::1", "red"),
            ("attach", "blue", "10.8.1.1 fd81::1", "red blue"),
            ("detach", "red", "10.8.2.1 fd82::1", "blue"),
        ):
            verb(host, "network", act, name, network)
            assert asks("dns") == set(servers.split())
            assert asks("domain") == set(domains.split())
        words = ("exec", name, "--", "resolvectl", "query", "--legend=no", peer.name)
        assert leased(host, "blue", peer.name)[0] in verb(host, *words).stdout
        verb(host, "network", "detach", name, "blue")
        for _ in range(4):  # more than systemd starts a service in ten seconds
            verb(host, "network", "attach", name, "blue")
            verb(host, "network", "detach", name, "blue")
        assert asks("dns") == set()
        there = Path(f"/proc/{machine.inside.pid}/root{drop_in}")
        assert not there.exists()
        there.write_text("[Resolve]\nDNS=192.0.2.53\n")
        verb(host, "network", "attach", name, "red")
        assert there.read_text() == "[Resolve]\nDNS=192.0.2.53\n"


@pytest.mark.parametrize("act", ["attach", "detach"])
def test_what_was_entered_is_left_when_the_supervisor_is_killed(host, colours, tree, name, act):
    verb(host, "boot", "-D", str(tree), "-M", name, "--network=red")
    verb(host, "network", "attach", name, "blue")
    if act == "detach":
        verb(host, "network", "detach", name, "red")
    leader = pid_of(name)
    os.kill(pid_of(name, "supervisor"), signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{leader}"), "it lives on")
    assert name not in verb(host, "network", "list").stdout
    assert host.links().keys() == {"out0"}


STEPS = ("enter-network blue", "add-veth {}", "set-addresses pm-blue", "check-firewall blue")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["5", "kill"])
def test_an_entry_that_ends_halfway_leaves_nothing(host, colours, tree, name, step, how):
    """A step fails, or the verb is killed: done again it is whole, and undone it is gone."""
    step = step.format(f"vb-{name}-blue")
    with background(host, tree, name, "--network=red") as machine:
        before = machine.inside.links(), host.links()
        fault = {"PYMACHINE_TEST_FAIL": f"{step}:{how}"}
        words = host.enter(*COMMAND, "network", "attach", name, "blue")
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, env=os.environ | fault
        )
        assert done.returncode
        if how == "5":
            assert "injected" in done.stderr
            assert (machine.inside.links(), host.links()) == before
        else:
            assert done.returncode == -signal.SIGKILL
        verb(host, "network", "attach", name, "blue")
        assert "pm-blue" in machine.inside.links()
        done = subprocess.run(words, check=False, capture_output=True, env=os.environ | fault)
        verb(host, "network", "detach", name, "blue")
        assert (machine.inside.links(), host.links()) == before


@pytest.mark.parametrize("step", STEPS)
def test_what_a_killed_verb_left_goes_with_the_machine(host, colours, tree, name, step):
    fault = {"PYMACHINE_TEST_FAIL": f"{step.format(f'vb-{name}-blue')}:kill"}
    words = host.enter(*COMMAND, "network", "attach", name, "blue")
    with background(host, tree, name, "--network=red"):
        assert subprocess.run(words, check=False, env=os.environ | fault).returncode == -9
    # The fixtures hold that nothing is left.


def test_entries_at_once_and_an_end_meanwhile(host, colours, tree, name):
    with background(host, tree, name, "--network=red") as machine:
        with ThreadPoolExecutor(8) as pool:
            words = (("port", "add", name, f"{8000 + n}:80") for n in range(4))
            acts = [("network", "attach", name, "blue"), ("network", "attach", name), *words]
            done = list(pool.map(lambda act: verb(host, *act, check=False), acts))
        assert [one.stderr for one in done if one.returncode] == []
        assert machine.inside.links().keys() == {"host0", "pm-blue", "pm-default"}
        assert verb(host, "port", "list", name, "--no-legend").stdout.count(name) == 4
    verb(host, "boot", "-D", str(tree), "-M", name, "--network=red")
    with ThreadPoolExecutor(2) as pool:
        entry = pool.submit(verb, host, "network", "attach", name, "blue", check=False)
        verb(host, "terminate", name)
        entry.result()


def test_who_cannot_enter_is_told(host, colours, tree, name):
    def refused(*words: str) -> str:
        done = verb(host, "network", *words, check=False)
        assert done.returncode
        assert done.stderr.count("\n") <= 2
        return done.stderr

    assert f"No machine '{name}' is running" in refused("attach", name, "blue")
    with background(host, tree, name):
        assert "no network of its own" in refused("attach", name, "blue")
    with background(host, tree, name, "--network=red", "--port=8080:80"):
        assert "There is no network 'green'" in refused("attach", name, "green")
        assert "port remove" in refused("detach", name, "red")
        host.ip(f"link add vb-{name}-blue type bridge")
        assert f"There is a link vb-{name}-blue" in refused("attach", name, "blue")
        host.ip(f"link delete vb-{name}-blue")


def test_what_went_over_each_link_is_told(host, colours, tree, name):
    with background(host, tree, name, "--network=red", "--network-veth-extra=x0:lan0") as machine:
        verb(host, "network", "attach", name, "blue")

        def told(*names: str) -> dict[str, dict]:
            text = verb(host, "network", "stats", *names, "--json=short").stdout
            return {one["link"]: one for one in json.loads(text)}

        before = told(name)
        assert {one["network"] for one in before.values()} == {"red", "blue", ""}
        assert before.keys() == {"host0", "pm-blue", "lan0"}
        assert before["lan0"].keys() == {"machine", "network", "link"} | {
            f"{way}_{what}"
            for way in ("received", "sent")
            for what in ("bytes", "packets", "errors", "dropped")
        }
        # 100 datagrams of 1000 bytes each, with 28 + 14 of headers, to where nobody listens.
        send = "import socket as s; [s.socket(2, 2).sendto(bytes(1000), ('10.8.2.1', 9)) for _ in"
        send += " range(100)]"
        run(*machine.inside.enter("/usr/bin/python3", "-c", send))
        after = told("blue")
        assert after.keys() == {"pm-blue"}
        sent = after["pm-blue"]["sent_bytes"] - before["pm-blue"]["sent_bytes"]
        assert 104_200 <= sent < 110_000
        assert after["pm-blue"]["sent_packets"] - before["pm-blue"]["sent_packets"] >= 100
        assert told(name)["host0"]["sent_bytes"] - before["host0"]["sent_bytes"] < 10_000
        table = verb(host, "network", "stats").stdout.splitlines()
        assert table[0].split()[:5] == ["MACHINE", "NETWORK", "LINK", "RECEIVED", "PACKETS"]
        assert table[-1] == "3 links listed."
        nobody = verb(host, "network", "stats", "nobody", check=False)
        assert "There is no machine 'nobody' running, and no such network" in nobody.stderr
