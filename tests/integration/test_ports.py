"""Ports of the host that lead to a machine, in network namespaces that stand for host and world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.hosts.overlay import private_copy
from tests.integration.networks import Network, network
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

HOST, WORLD = "192.0.2.1", "192.0.2.2"
HOST6, WORLD6 = "2001:db8:2::1", "2001:db8:2::2"
# Answers each client with a name and the address that the client has for it.
SERVER = """
import socket, sys
name, kind, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
server = socket.socket(socket.AF_INET6, getattr(socket, kind))
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("::", port))
if kind == "SOCK_STREAM":
    server.listen()
print("bound", flush=True)
while True:
    if kind == "SOCK_STREAM":
        client, address = server.accept()
        client.sendall(f"{name} {address[0].removeprefix('::ffff:')}".encode())
        client.close()
    else:
        _, address = server.recvfrom(100)
        server.sendto(f"{name} {address[0].removeprefix('::ffff:')}".encode(), address)
"""
CLIENT = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
client = socket.socket(family, getattr(socket, kind))
client.settimeout(2)
client.connect((host, port))
if kind == "SOCK_DGRAM":
    client.send(b"?")
print(client.recv(100).decode())
"""


def run(*command: object) -> str:
    words = list(map(str, command))
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def world():
    """A network namespace that reaches the host's."""
    with network() as found:
        yield found


@pytest.fixture
def host(world):
    """A router, with a table of the user's own that must not change."""
    with network() as found:
        found.ip(f"link add out0 type veth peer name in0 netns {world.pid}")
        for side, link, address, address6 in (
            (found, "out0", HOST, HOST6),
            (world, "in0", WORLD, WORLD6),
        ):
            side.ip(f"address add {address}/24 dev {link}")
            side.ip(f"address add {address6}/64 dev {link} nodad")
            side.ip(f"link set {link} up")
            side.ip("link set lo up")
        found.write("ipv4/ip_forward", "1")
        found.write("ipv6/conf/all/forwarding", "1")
        run(*found.enter("nft", "add table inet users; add chain inet users mine"))
        before = rules(found)
        yield found
        assert rules(found) == before
        assert not os.path.exists("/run/pymachine/ports")


@pytest.fixture
def name(request):
    return f"p{os.getpid() % 100000}"


def rules(host: Network) -> str:
    return run(*host.enter("nft", "list", "ruleset"))


def forwarded(host: Network) -> str:
    done = subprocess.run(
        host.enter("nft", "-n", "list", "table", "inet", "pymachine-ports"),
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout


class Machine:
    """A machine with a link, whose addresses we set from outside, as its manager would inside."""

    def __init__(self, host: Network, name: str) -> None:
        self.host, self.name = host, name
        self.inside = Network(self.state["leader"])
        self.servers = ExitStack()

    @property
    def state(self):
        return json.loads(Path(f"/run/pymachine/machines/{self.name}/state.json").read_text())

    def address(self, number: int, *, six: bool = False, link: str = "") -> str:
        """Give the machine the address 10.9.0.NUMBER, and its host the first of that network."""
        here = link or f"ve-{self.name}"
        net, end, more = ("fd09::", 64, " nodad") if six else ("10.9.0.", 24, "")
        self.host.ip(f"address replace {net}1/{end} dev {here}{more}")
        self.host.ip(f"link set {here} up")
        self.inside.ip(f"address add {net}{number}/{end} dev host0{more}")
        self.inside.ip("link set host0 up")
        self.inside.ip(f"route replace default via {net}1")
        return f"{net}{number}"

    def serve(self, port: int, kind: str = "SOCK_STREAM") -> None:
        self.servers.enter_context(listening(self.inside, self.name, port, kind))


@contextmanager
def listening(side: Network, name: str, port: int, kind: str = "SOCK_STREAM"):
    """Have a server that tells its name there."""
    command = side.enter("/usr/bin/python3", "-c", SERVER, name, kind, port)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "bound\n"
            yield
        finally:
            server.kill()


@contextmanager
def booted(host: Network, root: Path, name: str, *options: str):
    """Run a machine in the background."""
    words = (*COMMAND, "run", "-D", root, "-M", name, "--console=pipe", *options)
    process = subprocess.Popen(
        host.enter(*words, "/bin/sleep", "infinity"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    directory = Path(f"/run/pymachine/machines/{name}")

    def is_up():
        assert process.poll() is None, process.communicate()[1]
        try:
            return json.loads((directory / "state.json").read_text())["phase"] == "running"
        except FileNotFoundError:
            return False

    machine = None
    try:
        wait_for(is_up, "the machine does not start")
        machine = Machine(host, name)
        yield machine
    finally:
        if machine:
            machine.servers.close()
        process.terminate()
        said = process.communicate(timeout=30)[1]
        print(said)  # beside another failure
    assert said == ""


def reached(side: Network, address: str, port: int, kind: str = "SOCK_STREAM") -> str:
    """Return who answers a client, and as whom it sees that; "" for nobody."""
    done = subprocess.run(
        side.enter("/usr/bin/python3", "-c", CLIENT, kind, address, port),
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout.strip()


def test_a_port_leads_to_the_machine_from_the_world_and_from_the_host(host, world, tree, name):
    with booted(host, tree, name, "--network-veth", "--port=tcp:8080:80") as machine:
        assert "10.9.0.2" not in forwarded(host)
        machine.address(2)
        machine.serve(80)
        wait_for(lambda: "6 . 8080 : 10.9.0.2 . 80" in forwarded(host), "no forwarding")
        assert reached(world, HOST, 8080) == f"{name} {WORLD}"
        assert reached(host, HOST, 8080).startswith(f"{name} ")
        assert reached(host, "127.0.0.1", 8080) == f"{name} 10.9.0.1"
        assert reached(world, HOST, 80) == ""
        # The machine itself, by the host's address.
        assert reached(machine.inside, HOST, 8080).startswith(f"{name} ")


def test_ipv6(host, world, tree, name):
    with booted(host, tree, name, "--network-veth", "-p", "8080:80") as machine:
        machine.address(2, six=True)
        machine.serve(80)
        wait_for(lambda: "6 . 8080 : fd09::2 . 80" in forwarded(host), "no forwarding")
        # A link that has just come up first looks for others of its link-local address.
        seen = wait_for(lambda: reached(world, HOST6, 8080), "nobody answers")
        assert seen == f"{name} {WORLD6}"
        assert reached(host, HOST6, 8080).startswith(f"{name} ")


def test_a_machine_with_a_user_namespace(host, world, tree, name):
    options = ("--private-users=pick", "--private-users-ownership=chown")
    with booted(host, tree, name, "--network-veth", "--port=8080:80", *options) as machine:
        machine.address(2)
        machine.serve(80)
        wait_for(lambda: "6 . 8080 : 10.9.0.2 . 80" in forwarded(host), "no forwarding")
        assert reached(world, HOST, 8080) == f"{name} {WORLD}"


def test_datagrams(host, world, tree, name):
    with booted(host, tree, name, "--network-veth", "--port=udp:5300:53") as machine:
        machine.address(2)
        machine.serve(53, "SOCK_DGRAM")
        wait_for(lambda: "17 . 5300" in forwarded(host), "no forwarding")
        assert reached(world, HOST, 5300, "SOCK_DGRAM") == f"{name} {WORLD}"
        assert reached(host, "127.0.0.1", 5300, "SOCK_DGRAM").startswith(f"{name} ")


def test_the_rules_follow_the_machine_s_address(host, world, tree, name):
    with booted(host, tree, name, "--network-veth", "--port=8080") as machine:
        machine.address(2)
        machine.serve(8080)
        wait_for(lambda: ": 10.9.0.2 . 8080" in forwarded(host), "no forwarding")
        machine.inside.ip("address add 10.9.0.77/24 dev host0")
        machine.inside.ip("address delete 10.9.0.2/24 dev host0")
        machine.inside.ip("address add 10.9.0.77/24 dev host0")
        machine.inside.ip("route replace default via 10.9.0.1")
        wait_for(lambda: ": 10.9.0.77 . 8080" in forwarded(host), "it does not follow")
        assert "10.9.0.2" not in forwarded(host)
        assert reached(world, HOST, 8080) == f"{name} {WORLD}"
        machine.inside.ip("address flush dev host0 scope global")
        wait_for(lambda: "10.9.0.77" not in forwarded(host), "it leads to nobody")


def test_one_address_and_a_range(host, world, tree, name):
    host.ip("address add 192.0.2.9/24 dev out0")
    options = ("--network-veth", "--port=192.0.2.9:8000-8002:80-82")
    with booted(host, tree, name, *options) as machine:
        machine.address(2)
        machine.serve(82)
        wait_for(lambda: "192.0.2.9 . 6 . 8002 : 10.9.0.2 . 82" in forwarded(host), "no rule")
        assert reached(world, "192.0.2.9", 8002) == f"{name} {WORLD}"
        assert reached(world, HOST, 8002) == ""


@pytest.mark.parametrize("filtered", ["0", "1"])
def test_machines_of_a_zone_reach_one_another_by_the_host(host, pristine_tree, name, filtered):
    """Whether the bridge's own packets pass the rules too, or not."""
    try:
        host.write("bridge/bridge-nf-call-iptables", filtered)
    except subprocess.CalledProcessError:
        if filtered == "1":
            pytest.skip("this kernel has no br_netfilter")
    with private_copy(pristine_tree) as one, private_copy(pristine_tree) as other:
        zone = "--network-zone=shared"
        with (
            booted(host, one, f"{name}a", zone, "--port=8080:80") as server,
            booted(host, other, f"{name}b", zone) as client,
        ):
            server.address(2, link="vz-shared")
            client.address(3, link="vz-shared")
            server.serve(80)
            wait_for(lambda: ": 10.9.0.2 . 80" in forwarded(host), "no forwarding")
            seen = "10.9.0.3" if filtered == "1" else "10.9.0.1"
            assert reached(client.inside, HOST, 8080) == f"{name}a {seen}"


def test_a_machine_does_not_reach_what_listens_on_127_0_0_1(host, tree, name):
    with booted(host, tree, name, "--network-veth", "--port=8080") as machine:
        machine.address(2)
        wait_for(lambda: ": 10.9.0.2 . 8080" in forwarded(host), "no forwarding")
        machine.inside.write("ipv4/conf/all/route_localnet", "1")
        machine.inside.ip("address delete 127.0.0.1/8 dev lo")
        machine.inside.ip("route add 127.0.0.1/32 via 10.9.0.1 dev host0 src 10.9.0.2")
        with listening(host, "secret", 99):
            assert reached(host, "127.0.0.1", 99).startswith("secret")
            assert reached(machine.inside, "10.9.0.1", 99).startswith("secret")
            assert reached(machine.inside, "127.0.0.1", 99) == ""


def test_a_port_is_one_machine_s(host, pristine_tree, name):
    with (
        private_copy(pristine_tree) as one,
        private_copy(pristine_tree) as other,
        booted(host, one, f"{name}a", "--network-veth", "--port=8080-8090"),
    ):
        words = (*COMMAND, "run", "-D", other, "-M", f"{name}b", "-n", "-p", "192.0.2.1:8085:80")
        done = subprocess.run(
            host.enter(*words, "/bin/true"), check=False, capture_output=True, text=True
        )
        assert done.returncode
        assert f"goes to machine '{name}a' already" in done.stderr
        assert done.stderr.count("\n") == 1
        words = (*COMMAND, "run", "-D", other, "-M", f"{name}b", "-n", "-p", "udp:8085")
        assert subprocess.run(host.enter(*words, "/bin/true"), check=False).returncode == 0


def test_what_a_killed_supervisor_left_is_removed(host, tree, name):
    option = "--network-bridge=br0"
    host.ip("link add br0 type bridge")
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, option, "--port=8080")
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert host.read("ipv4/conf/br0/route_localnet") == "1"
    machine = Machine(host, name)
    machine.address(2, link="br0")
    wait_for(lambda: ": 10.9.0.2 . 8080" in forwarded(host), "no forwarding")
    os.kill(machine.state["supervisor"], signal.SIGKILL)
    leader = machine.state["leader"]
    wait_for(lambda: not os.path.exists(f"/proc/{leader}"), "the leader lives on")
    done = subprocess.run(
        host.enter(*COMMAND, "status", name), check=False, capture_output=True, timeout=60
    )
    assert done.returncode
    assert forwarded(host) == ""
    assert host.read("ipv4/conf/br0/route_localnet") == "0"


def test_a_reboot_forwards_to_the_new_machine_alone(host, pymachine, tree, name):
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, "-n", "--port=8080")
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    try:
        machine = Machine(host, name)
        before = machine.state["leader"]
        machine.address(2)
        wait_for(lambda: ": 10.9.0.2 . 8080" in forwarded(host), "no forwarding")
        run(*host.enter(*COMMAND, "reboot", name))
        wait_for(
            lambda: machine.state["leader"] != before and machine.state["phase"] == "running",
            "no reboot",
        )
        assert ": 10.9.0.2 ." not in forwarded(host)
        again = Machine(host, name)
        again.address(3)
        wait_for(lambda: ": 10.9.0.3 . 8080" in forwarded(host), "no forwarding")
    finally:
        subprocess.run(host.enter(*COMMAND, "terminate", name), check=False)
        wait_for(lambda: forwarded(host) == "", "the table stays")


def port(host, *words: str) -> subprocess.CompletedProcess[str]:
    command = host.enter(*COMMAND, "port", *words)
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("options", [(), ("--port=9000",)], ids=["none before", "one before"])
def test_ports_come_and_go_while_the_machine_runs(host, world, tree, name, options):
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, "-n", *options)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    try:
        machine = Machine(host, name)
        machine.address(2)
        machine.serve(80)
        assert port(host, "add", name, "8080:80", "udp:5300-5301:53-54").stderr == ""
        assert reached(world, HOST, 8080) == f"{name} {WORLD}"
        assert reached(host, "127.0.0.1", 8080) == f"{name} 10.9.0.1"
        listed = {row["port"] for row in json.loads(port(host, "list", "-j").stdout)}
        before = {"tcp:9000:9000"} if options else set()
        assert listed == {"tcp:8080:80", "udp:5300-5301:53-54"} | before
        # They follow its addresses, as those that it was started with.
        machine.inside.ip("address add 10.9.0.77/24 dev host0")
        machine.inside.ip("address delete 10.9.0.2/24 dev host0")
        machine.inside.ip("address add 10.9.0.77/24 dev host0")
        wait_for(lambda: "6 . 8080 : 10.9.0.77 . 80" in forwarded(host), "it does not follow")
        done = port(host, "add", name, "8080:99")
        assert "is forwarded to" in done.stderr
        assert done.returncode
        assert "is not forwarded to" in port(host, "remove", name, "8081:80").stderr
        assert port(host, "remove", name, "8080:80").returncode == 0
        assert "8080" not in forwarded(host)
        assert "17 . 5300" in forwarded(host)
    finally:
        machine.servers.close()
        subprocess.run(host.enter(*COMMAND, "terminate", name), check=False)
        wait_for(lambda: forwarded(host) == "", "the table stays")


def test_a_port_that_was_added_is_there_after_a_reboot(host, world, tree, name):
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, "--network-veth")
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    try:
        machine = Machine(host, name)
        before = machine.state["leader"]
        assert port(host, "add", name, "8080:80").stderr == ""
        run(*host.enter(*COMMAND, "reboot", name))
        wait_for(
            lambda: machine.state["leader"] != before and machine.state["phase"] == "running",
            "no reboot",
        )
        again = Machine(host, name)
        again.address(3)
        again.serve(80)
        wait_for(lambda: "6 . 8080 : 10.9.0.3 . 80" in forwarded(host), "no forwarding")
        assert reached(world, HOST, 8080) == f"{name} {WORLD}"
        again.servers.close()
        assert port(host, "remove", name, "8080:80").stderr == ""
        assert forwarded(host) == ""
        assert host.read(f"ipv4/conf/ve-{name}/route_localnet") == "0"
    finally:
        subprocess.run(host.enter(*COMMAND, "terminate", name), check=False)
        wait_for(lambda: forwarded(host) == "", "the table stays")


def test_a_command_gets_a_port_too(host, world, tree, name):
    with booted(host, tree, name, "--network-veth") as machine:
        machine.address(2)
        machine.serve(80)
        assert "do not follow" in port(host, "add", name, "8080:80").stderr
        assert reached(world, HOST, 8080) == f"{name} {WORLD}"
    assert forwarded(host) == ""


def test_a_port_of_another_machine_is_not_to_be_added(host, pristine_tree, name):
    with (
        private_copy(pristine_tree) as one,
        private_copy(pristine_tree) as other,
        booted(host, one, f"{name}a", "--network-veth", "--port=8080-8090"),
        booted(host, other, f"{name}b", "--network-veth"),
    ):
        done = port(host, "add", f"{name}b", "8085:80")
        assert f"goes to machine '{name}a' already" in done.stderr
        assert port(host, "list", f"{name}b", "--no-legend").stdout == ""


def test_rules_that_somebody_flushed_are_made_again(host, tree, name):
    with booted(host, tree, name, "--network-veth", "--port=8080") as machine:
        machine.address(2)
        wait_for(lambda: ": 10.9.0.2 . 8080" in forwarded(host), "no forwarding")
        run(*host.enter("nft", "delete", "table", "inet", "pymachine-ports"))
        machine.inside.ip("address add fd09::2/64 dev host0 nodad")
        wait_for(lambda: ": fd09::2 . 8080" in forwarded(host), "no forwarding")
        assert ": 10.9.0.2 . 8080" in forwarded(host)


def test_a_host_that_routes_nothing_is_told_of(host, tree, name):
    host.write("ipv4/ip_forward", "0")
    words = (*COMMAND, "run", "-D", tree, "-M", name, "-n", "-p", "8080", "/bin/true")
    done = subprocess.run(host.enter(*words), check=True, capture_output=True, text=True)
    warned = "net.ipv4.ip_forward is 0" in done.stderr
    assert warned != os.path.exists("/run/systemd/netif/links")
