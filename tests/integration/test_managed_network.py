"""Managed networks, by real traffic between network namespaces: host, world, machines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.hosts.overlay import private_copy
from tests.integration.networks import HOST, HOST6, WORLD, WORLD6, network, run, verb
from tests.integration.test_ports import booted, listening, reached
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Asks a server for the addresses of a name, by the system's own resolver.
RESOLVE = "import socket,sys; print(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1],1)}))"


def shown(host, network_name: str = "default") -> dict:
    """Return what `network show` tells."""
    return json.loads(verb(host, "network", "show", network_name, "--json=short").stdout)[0]


def addresses(machine) -> tuple[str, str]:
    """Return the IPv4 and IPv6 address of global scope that a machine has on host0."""
    text = run(*machine.inside.enter("ip", "-json", "address", "show", "dev", "host0"))
    found = {
        info["family"]: info["local"]
        for info in json.loads(text)[0]["addr_info"]
        if info["scope"] == "global"
    }
    return found["inet"], found["inet6"]


def command(host, root, machine_name: str, *words: str) -> str:
    """Return what a command in a machine of its own prints."""
    done = verb(host, "run", "-D", str(root), "-M", machine_name, *words)
    assert done.stderr == ""
    return done.stdout


def test_a_command_without_any_client_has_addresses_routes_and_a_resolver(host, tree, name):
    shell = "ip -json address show host0; ip -json route; ip -6 -json route; cat /etc/resolv.conf"
    told = command(host, tree, name, "--network", "--", "sh", "-c", shell).splitlines()
    own = {info["family"]: info for info in json.loads(told[0])[0]["addr_info"]}
    network_ = shown(host)
    assert own["inet"]["local"] == network_["leases"][0]["addresses"][0]
    assert own["inet"]["prefixlen"] == 24
    gateway, gateway6 = (network_[key].partition("/")[0] for key in ("ipv4", "ipv6"))
    assert {r.get("gateway") for r in json.loads(told[1])} == {gateway, None}
    assert gateway6 in {r.get("gateway") for r in json.loads(told[2])}
    assert told[3:] == ["search default", f"nameserver {gateway}", f"nameserver {gateway6}"]
    assert not network_["up"]


def test_it_reaches_the_world_as_the_host_and_is_not_reached(host, world, tree, name):
    with booted(host, tree, name, "--network") as machine, listening(world, "world", 80):
        assert reached(machine.inside, WORLD, 80) == f"world {HOST}"
        assert reached(machine.inside, WORLD6, 80) == f"world {HOST6}"
        machine.serve(80)
        ipv4, ipv6 = addresses(machine)
        gateway, gateway6 = (shown(host)[key].partition("/")[0] for key in ("ipv4", "ipv6"))
        assert reached(host, ipv4, 80) == f"{name} {gateway}"
        assert reached(host, ipv6, 80) == f"{name} {gateway6}"
        world.ip(f"route add {ipv4} via {HOST}")
        world.ip(f"route add {ipv6} via {HOST6}")
        assert reached(world, ipv4, 80) == ""
        assert reached(world, ipv6, 80) == ""


def test_without_nat_the_world_sees_the_machine(host, world, tree, name):
    verb(host, "network", "create", "open", "--no-nat", "--ipv4=10.3.2.1/24", "--ipv6=fd77::1/64")
    world.ip(f"route add 10.3.2.0/24 via {HOST}")
    world.ip(f"route add fd77::/64 via {HOST6}")
    with (
        booted(host, tree, name, "--network=open") as machine,
        listening(world, "world", 80),
    ):
        machine.serve(80)
        for seen, server in zip(addresses(machine), (WORLD, WORLD6), strict=True):
            assert reached(machine.inside, server, 80) == f"world {seen}"
            assert reached(world, seen, 80) == f"{name} {server}"


def test_a_forwarded_port_leads_in(host, world, tree, name):
    with booted(host, tree, name, "--network", "--port=8080:80") as machine:
        machine.serve(80)
        wait_for(lambda: reached(world, HOST, 8080) == f"{name} {WORLD}", "IPv4")
        wait_for(lambda: reached(world, HOST6, 8080) == f"{name} {WORLD6}", "IPv6")
        wait_for(lambda: reached(host, "127.0.0.1", 8080).startswith(name), "from the host")


def test_machines_of_a_network_find_one_another_by_name(host, pristine_tree, name):
    with (
        private_copy(pristine_tree) as one,
        private_copy(pristine_tree) as other,
        booted(host, one, f"{name}a", "--network") as first,
        booted(host, other, f"{name}b", "--network") as second,
    ):
        assert set(addresses(first)).isdisjoint(addresses(second))
        first.serve(80)
        for address, own in zip(addresses(first), addresses(second), strict=True):
            assert reached(second.inside, address, 80) == f"{name}a {own}"
        for asked in (f"{name}a", f"{name}a.default"):
            told = run(*_inside(second, "getent", "ahosts", asked)).split()
            assert set(addresses(first)) <= set(told), asked
        reverse = run(*_inside(second, "getent", "hosts", addresses(first)[0]))
        assert f"{name}a.default" in reverse
    with private_copy(pristine_tree) as root, booted(host, root, f"{name}b", "--network") as left:
        gone = subprocess.run(_inside(left, "getent", "ahosts", f"{name}a"), check=False)
        assert gone.returncode == 2


def _inside(machine, *words: str) -> list[str]:
    return ["nsenter", f"--target={machine.inside.pid}", "--net", "--mount", *words]


def test_what_is_not_of_the_network_is_asked_of_the_host_s_resolver(host, world, tree, name):
    resolv_conf = Path("/etc/resolv.conf")
    answer = "--address=/outside.example/203.0.113.7"
    server = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--pid-file=", answer]
    before = resolv_conf.read_bytes() if resolv_conf.exists() else b""
    with subprocess.Popen(world.enter(*server)) as resolver:
        try:
            resolv_conf.write_text(f"nameserver {WORLD}\n")
            with booted(host, tree, name, "--network") as machine:
                told = run(*_inside(machine, "getent", "ahosts", "outside.example"))
                assert "203.0.113.7" in told
        finally:
            resolv_conf.write_bytes(before)
            resolver.terminate()


def test_networks_are_apart(host, pristine_tree, name):
    verb(host, "network", "create", "red")
    verb(host, "network", "create", "blue")
    with (
        private_copy(pristine_tree) as one,
        private_copy(pristine_tree) as other,
        booted(host, one, f"{name}r", "--network=red", "-p", "8080:80") as red,
        booted(host, other, f"{name}b", "--network=blue") as blue,
    ):
        red.serve(80)
        for address in addresses(red):
            assert reached(host, address, 80).startswith(f"{name}r ")
            assert reached(blue.inside, address, 80) == ""
        found = subprocess.run(_inside(blue, "getent", "ahosts", f"{name}r.red"), check=False)
        assert found.returncode == 2
        # What is open to the world is so to other networks, too.
        wait_for(lambda: reached(blue.inside, HOST, 8080).startswith(f"{name}r "), "the port")


def test_a_client_inside_gets_the_same_address(host, tree, name, tmp_path):
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "$ip $router $dns $domain"\nexit 0\n')
    script.chmod(0o755)
    with booted(host, tree, name, "--network") as machine:
        client = ("busybox", "udhcpc", "-i", "host0", "-nqf", "-s", script)
        told = run(*machine.inside.enter(*client)).split()
        gateway = shown(host)["ipv4"].partition("/")[0]
        assert told == [addresses(machine)[0], gateway, gateway, "default"]


def test_a_stranger_on_the_bridge_gets_no_lease(host, tree, name):
    with booted(host, tree, name, "--network"), network() as stranger:
        host.ip(f"link add stray type veth peer name eth0 netns {stranger.pid}")
        host.ip("link set stray up master pm-default")
        stranger.ip("link set eth0 up")
        client = (
            "busybox",
            "udhcpc",
            "-i",
            "eth0",
            "-nqf",
            "-t",
            "2",
            "-T",
            "1",
            "-s",
            "/bin/true",
        )
        done = subprocess.run(stranger.enter(*client), check=False, capture_output=True)
        assert done.returncode
        host.ip("link delete stray")


def test_systemd_networkd_inside_takes_the_same_lease(host, tree, name):
    run("systemctl", f"--root={tree}", "enable", "systemd-networkd")
    verb(host, "boot", "-D", str(tree), "-M", name, "--network")
    try:
        state = json.loads(Path(f"/run/pymachine/machines/{name}/state.json").read_text())
        leased = shown(host)["leases"][0]["addresses"]
        words = ("networkctl", "status", "host0", "--no-pager")
        inside = ["nsenter", f"--target={state['leader']}", "--all", *words]

        def is_leased():
            told = run(*inside)
            return f"{leased[0]} (DHCP" in told and leased[1] in told and "routable" in told

        wait_for(is_leased, "no lease")
    finally:
        verb(host, "poweroff", name)


def test_machines_that_start_at_once_have_addresses_of_their_own(host, pristine_tree, name):
    """The network is neither defined nor up when all of them begin."""
    count = 20
    all_run = threading.Barrier(count)

    def start(number: int) -> str:
        script = "ip -json a show host0; exec cat"  # until its input ends
        options = ("--network", "--read-only", "--", "sh", "-c", script)
        words = ("run", "-D", str(pristine_tree), "-M", f"{name}-{number}", *options)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(host.enter(*COMMAND, *words), **pipes, text=True)
        told = process.stdout.readline()
        try:
            all_run.wait(PATIENCE)
        finally:
            _, errors = process.communicate(timeout=60)
        assert errors == ""
        return json.loads(told)[0]["addr_info"][0]["local"]

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(start, range(count)))
    assert len(set(found)) == count


def test_a_machine_keeps_its_address(host, tree, name):
    def own() -> str:
        return command(host, tree, name, "--network", "--", "ip", "-4", "-o", "a", "show", "host0")

    first = own().split()[3]
    assert command(host, tree, f"{name}b", "--network", "--", "ip", "a").count(first) == 0
    assert own().split()[3] == first


def test_a_subnet_that_is_routed_already_is_left_alone(host, tree, name):
    free = shown_proposal(host, "lab")
    host.ip(f"route add {free} dev out0")
    assert shown_proposal(host, "lab") != free
    done = verb(host, "network", "create", "lab", f"--ipv4={free}", check=False)
    assert done.returncode
    assert done.stderr.count("\n") == 1


def shown_proposal(host, network_name: str) -> str:
    """Return the subnet that a new network would get."""
    verb(host, "network", "create", network_name)
    try:
        address = shown(host, network_name)["ipv4"]
        return f"{address.rpartition('.')[0]}.0/24"
    finally:
        verb(host, "network", "delete", network_name)


def test_a_network_in_use_is_not_deleted(host, tree, name):
    with booted(host, tree, name, "--network"):
        done = verb(host, "network", "delete", "default", check=False)
        assert done.returncode
        assert f"in use by {name}" in done.stderr
        row = verb(host, "network", "list", "--no-legend").stdout.split()
        assert (row[0], row[1], row[-1]) == ("default", "pm-default", name)
    verb(host, "network", "delete", "default")
    assert verb(host, "network", "list").stdout == "No networks.\n"


def test_what_a_killed_supervisor_left_is_removed_by_the_next_verb(host, pristine_tree, name):
    with private_copy(pristine_tree) as one, private_copy(pristine_tree) as other:
        for root, last in ((one, "a"), (other, "b")):
            verb(host, "boot", "-D", str(root), "-M", name + last, "--network")
        for last in "ab":
            path = f"/run/pymachine/machines/{name}{last}/state.json"
            state = json.loads(Path(path).read_text())
            os.kill(state["supervisor"], signal.SIGKILL)
            wait_for(lambda: not os.path.exists(f"/proc/{state['leader']}"), "it lives on")  # noqa: B023
            assert name + last in Path("/run/pymachine/members").read_text()
            assert name + last not in verb(host, "network", "list").stdout
            assert ("pm-default" in host.links()) == (last == "a")


@pytest.mark.parametrize("step", ["enter-network default", "add-veth", "set-addresses host0"])
def test_a_step_that_fails_leaves_nothing(host, tree, name, step):
    step = f"{step} vb-{name}" if step == "add-veth" else step
    words = ("run", "-D", str(tree), "-M", name, "--network", "/bin/true")
    done = subprocess.run(
        host.enter(*COMMAND, *words),
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYMACHINE_TEST_FAIL": step},
    )
    assert "injected" in done.stderr


def test_a_reboot_keeps_the_network(host, tree, name):
    verb(host, "boot", "-D", str(tree), "-M", name, "--network")
    path = Path(f"/run/pymachine/machines/{name}/state.json")
    try:
        before = json.loads(path.read_text())
        leased = shown(host)["leases"]
        verb(host, "reboot", name)

        def is_up():
            state = json.loads(path.read_text())
            return state["leader"] != before["leader"] and state["phase"] == "running"

        wait_for(is_up, "no reboot")
        inside = ["nsenter", f"--target={json.loads(path.read_text())['leader']}", "--net"]
        assert leased[0]["addresses"][0] in run(*inside, "ip", "address")
        assert shown(host)["leases"][0]["running"]
    finally:
        verb(host, "poweroff", name)


def test_a_host_without_dnsmasq_is_told_the_package(host, tree, name):
    hide = f'mount --bind /dev/null {shutil.which("dnsmasq")} && exec "$@"'
    words = (*COMMAND, "run", "-D", tree, "-M", name, "--network", "/bin/true")
    apart = ("unshare", "--mount", "sh", "-c", hide, "sh", *map(str, words))
    done = subprocess.run(host.enter(*apart), check=False, capture_output=True, text=True)
    assert done.returncode
    assert "dnsmasq-base" in done.stderr


def test_a_bridge_of_that_name_is_not_ours_to_take(host, tree, name):
    host.ip("link add pm-default type bridge")
    done = verb(host, "run", "-D", str(tree), "-M", name, "--network", "/bin/true", check=False)
    assert "There is a link pm-default on this host already" in done.stderr
    host.ip("link delete pm-default")


def test_a_machine_with_a_user_namespace_and_a_read_only_root(host, tree, name):
    options = ("--private-users=pick", "--private-users-ownership=chown", "--network")
    told = command(host, tree, name, *options, "--", "cat", "/etc/resolv.conf")
    assert "search default" in told
    told = command(host, tree, name, "--network", "--read-only", "--", "cat", "/etc/resolv.conf")
    assert "search default" in told


def test_an_address_and_a_link_layer_address_of_one_s_own(host, tree, name, pristine_tree):
    verb(host, "network", "create", "lab", "--ipv4=10.9.8.1/24", "--ipv6=fd98::1/64")
    mac = "02:00:00:00:00:09"
    options = ("--network=lab", "--network-address=fd98::0:63", f"--network-mac-address={mac}")
    with booted(host, tree, name, *options) as machine:
        assert addresses(machine) == ("10.9.8.99", "fd98::63")
        assert mac in run(*machine.inside.enter("ip", "link", "show", "host0"))
        told = verb(host, "status", name).stdout
        assert "Network: lab\n" in told
        assert "Address: 10.9.8.99\n" in told
        rows = json.loads(verb(host, "list", "--max-addresses=all", "--json=short").stdout)
        listed = {row["machine"]: row["addresses"].split() for row in rows}
        assert {"10.9.8.99", "fd98::63"} <= set(listed[name])
        with private_copy(pristine_tree) as other:
            for option, says in (
                ("--network-address=10.9.8.99", f"that of machine '{name}'"),
                (f"--network-mac-address={mac}", f"Machine '{name}' has the link-layer"),
                ("--network-address=10.9.9.9", "subnets are 10.9.8.0/24 and fd98::/64"),
                ("--network-address=10.9.8.1", "is no address for a machine"),
            ):
                words = ("run", "-D", str(other), "-M", f"{name}b", "--network=lab", option)
                done = verb(host, *words, "/bin/true", check=False)
                assert done.returncode
                assert says in done.stderr
