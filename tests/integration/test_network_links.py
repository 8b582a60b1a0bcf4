"""Machines with links, in a network namespace that stands for the host's."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from machinectl_py.plan.link_names import short_name
from tests.conftest import COMMAND
from tests.hosts.apart import systemd_runs
from tests.integration.networks import Network, facts, network
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Tells what it sees, and stays until it is told to go.
LOOK = "ip -details -json link >/seen; mv /seen /links; until [ -e /go ]; do sleep 0.02; done"
# systemd-nspawn looks at links by sysfs, which shows those of the namespace that mounted it; where
# it is read-only there is no udev to wait for.
OWN_SYS = """
mount --rbind /sys/fs/cgroup /mnt && mount -t sysfs -o ro sysfs /sys &&
mount --rbind /mnt /sys/fs/cgroup && umount -R /mnt && exec "$@"
"""
ENVIRONMENT = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
_numbers = itertools.count(1)
MACHINED = ("org.freedesktop.machine1", "/org/freedesktop/machine1")
MACHINED += ("org.freedesktop.machine1.Manager",)


@pytest.fixture
def host():
    """A network namespace with a bridge br9, and a pair of links up0, up1."""
    with network() as found:
        found.ip("link add br9 address 02:00:00:00:00:09 type bridge")
        found.ip("link add up0 type veth peer name up1")
        before = found.links()
        yield found
        wait_for(lambda: found.links() == before, "links are left, or lost")


@pytest.fixture
def name():
    """A short name: what is made of it should fit."""
    return f"n{os.getpid() % 10000}-{next(_numbers)}"


def run_command(host: Network, root: Path, name: str, *options: str) -> list[str]:
    words = [*COMMAND, "run", "-D", root, "-M", name, *options, "--console=pipe"]
    return host.enter(*words, "/bin/sh", "-c", LOOK)


def nspawn_command(host: Network, root: Path, name: str, *options: str) -> list[str]:
    alone = [] if systemd_runs() else ["--register=no", "--keep-unit"]
    words = ["systemd-nspawn", "--quiet", *alone, "-D", root, "-M", name, *options]
    apart = ("unshare", "--mount", "--propagation=slave", "/bin/sh", "-c", OWN_SYS, "sh")
    return host.enter(*apart, *words, "--console=pipe", "/bin/sh", "-c", LOOK)


@contextmanager
def running(command: list[str], root: Path):
    """Run a machine that looks at its links; give them, and have it end."""
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: (root / "links").exists() or process.poll() is not None, "no links")
        assert (root / "links").exists(), process.communicate()[0]
        yield facts((root / "links").read_text())
    finally:
        (root / "go").touch()
        said = process.communicate(timeout=30)[0]
        for file in ("go", "links"):
            (root / file).unlink(missing_ok=True)
    assert process.returncode == 0, said


@pytest.mark.parametrize(
    "options",
    [
        ("--network-veth",),
        ("--network-veth-extra=out0:in0", "--network-veth-extra=both"),
        ("--network-bridge=br9",),
        ("--network-zone=testing",),
        ("--network-macvlan=up0",),
        ("--network-interface=up1",),
        ("--network-veth", "--network-veth-extra=x", "--network-interface=up1", "-n"),
    ],
    ids=" ".join,
)
def test_links_are_those_of_systemd_nspawn(host, tree, name, options):
    seen = {}
    for who, make in (("nspawn", nspawn_command), ("ours", run_command)):
        with (
            network_like(host) as apart,
            running(make(apart, tree, name, *options), tree) as inside,
        ):
            seen[who] = (apart.links(), inside)
    assert seen["ours"] == seen["nspawn"]
    assert seen["ours"][1]


@contextmanager
def network_like(host: Network):
    """Give a namespace with links as those of another, addresses too."""
    with network() as found:
        links = host.links()
        found.ip(f"link add br9 address {links['br9']['address']} type bridge")
        addresses = [links[link]["address"] for link in ("up0", "up1")]
        found.ip(
            f"link add up0 address {addresses[0]} type veth peer name up1 address {addresses[1]}"
        )
        yield found


@pytest.mark.parametrize("prefix", ["ve", "vb"])
def test_a_long_name_is_shortened_as_systemd_nspawn_does(host, tree, prefix):
    name = f"a-long-name-of-a-machine-{os.getpid()}"
    options = ("--network-veth",) if prefix == "ve" else ("--network-bridge=br9",)
    seen = []
    for make in (nspawn_command, run_command):
        with running(make(host, tree, name, *options), tree):
            seen.append(host.links())
        wait_for(lambda: len(host.links()) == 3, "the link stays")
    assert seen[0].keys() == seen[1].keys()
    short = short_name(f"{prefix}-{name}")
    assert seen[1][short] == seen[0][short]
    assert seen[1][short]["alternative"] == [f"{prefix}-{name}"]


def test_a_child_link_with_a_long_name(host, tree, name):
    host.ip("link set up0 name a-long-name-15c")
    try:
        with running(
            run_command(host, tree, name, "--network-macvlan=a-long-name-15c"), tree
        ) as inside:
            (link,) = inside
            assert link == short_name("mv-a-long-name-15c")
            assert inside[link]["alternative"] == ["mv-a-long-name-15c"]
            assert inside[link]["mode"] == "bridge"
    finally:
        host.ip("link set a-long-name-15c name up0")


def test_a_zone_lives_as_long_as_its_last_machine(host, pristine_tree, name):
    from tests.hosts.overlay import private_copy

    with private_copy(pristine_tree) as one, private_copy(pristine_tree) as other:
        command = run_command(host, other, f"{name}b", "--network-zone=shared")
        with running(run_command(host, one, f"{name}a", "--network-zone=shared"), one):
            second = running(command, other)
            second.__enter__()
            ports = {k for k, link in host.links().items() if link["master"] == "vz-shared"}
            assert ports == {f"vb-{name}a", f"vb-{name}b"}
        assert "vz-shared" in host.links()
        second.__exit__(None, None, None)
    assert "vz-shared" not in host.links()


def test_a_link_comes_back_under_its_name(host, tree, name):
    before = host.links()["up1"]
    command = host.enter(
        *(*COMMAND, "run", "-D", tree, "-M", name, "--network-interface=up1:lan0"),
        *("/bin/sh", "-c", "ip link set lan0 name other0; ip link show other0"),
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "other0@" in done.stdout
    assert host.links()["up1"] == before


def test_links_of_a_user_namespace_belong_to_its_root(host, tree, name):
    """The owner of a network namespace may change its links; it is that of the machine."""
    before = host.links()
    options = ("--private-users=pick", "--private-users-ownership=chown", "--network-zone=shared")
    options += ("--network-interface=up1:lan0", "--network-veth-extra=out0:in0")
    script = (
        "ip link set lan0 name other0; ip link set host0 up; ip -br link; cat /proc/self/uid_map"
    )
    command = host.enter(
        *(*COMMAND, "run", "-D", tree, "-M", name, *options, "/bin/sh", "-c", script)
    )
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen = {line.partition(" ")[0].partition("@")[0] for line in done.stdout.splitlines()}
    assert {"host0", "other0", "in0"} <= seen
    assert int(done.stdout.splitlines()[-1].split()[1]) > 0
    wait_for(lambda: host.links() == before, "a link is not as it was")


def test_a_machine_finds_its_links_at_once(host, tree, name):
    for _ in range(5):
        command = host.enter(
            *(*COMMAND, "run", "-D", tree, "-M", name, "--network-veth"),
            *("/bin/sh", "-c", "exec cat /sys/class/net/host0/address"),
        )
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_what_a_killed_supervisor_left_is_removed(host, pymachine, tree, name):
    options = ("--network-zone=shared", "--network-interface=up1:lan0", "--network-veth-extra=e0")
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, *options)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert {f"vb-{name}", "vz-shared", "e0"} <= host.links().keys()
    assert "up1" not in host.links()
    state = json.loads(Path(f"/run/pymachine/machines/{name}/state.json").read_text())
    os.kill(state["supervisor"], signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{state['leader']}"), "the leader lives on")
    done = subprocess.run(
        host.enter(*COMMAND, "status", name), check=False, capture_output=True, timeout=60
    )
    assert done.returncode
    assert host.links().keys() == {"br9", "up0", "up1"}
    assert not os.path.exists(f"/run/pymachine/machines/{name}")


def test_links_are_there_again_after_a_reboot(host, pymachine, tree, name):
    options = ("--network-zone=shared", "--network-interface=up1")
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, *options)
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    def state():
        return json.loads(Path(f"/run/pymachine/machines/{name}/state.json").read_text())

    try:
        before, links = state(), host.links()
        done = subprocess.run(
            host.enter(*COMMAND, "reboot", name), check=False, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        wait_for(lambda: state()["boots"] == 2 and state()["phase"] == "running", "no reboot")
        assert host.links() == links
        assert state()["leader"] != before["leader"]
        seen = subprocess.run(
            [*COMMAND, "exec", name, "/bin/ls", "/sys/class/net"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert {"host0", "up1"} <= set(seen.stdout.split())
    finally:
        pymachine("terminate", name)


def test_a_link_of_others_is_in_the_way_and_stays(host, tree, name):
    host.ip(f"link add ve-{name} type bridge")
    done = subprocess.run(
        run_command(host, tree, name, "--network-veth"),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode
    assert f"There is a link ve-{name} on this host already" in done.stderr
    assert f"ve-{name}" in host.links()
    host.ip(f"link delete ve-{name}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--network-bridge=nowhere",), "There is no link nowhere on this host"),
        (("--network-bridge=up0",), "The link up0 is no bridge"),
        (("--network-macvlan=up0", "--network-ipvlan=up0"), "children of both kinds"),
        (("--network-macvlan=nowhere",), "There is no link nowhere on this host"),
        (("--network-interface=nowhere",), "There is no link nowhere on this host"),
        (("--network-interface=lo:lo1",), "The link lo cannot leave its namespace"),
        (("--network-veth", "--network-interface=up1:host0"), "would be called host0"),
        (("--network-namespace-path=/etc/passwd",), "/etc/passwd is no network namespace"),
        (("--network-namespace-path=/nowhere",), "There is no network namespace /nowhere"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_what_cannot_be_is_told_in_one_line(host, tree, name, options, said):
    done = subprocess.run(
        run_command(host, tree, name, *options),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_of_a_bridge_has_no_children(host, tree, name):
    host.ip("link set up0 master br9")
    try:
        done = subprocess.run(
            run_command(host, tree, name, "--network-macvlan=up0"),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        host.ip("link set up0 nomaster")
    assert done.returncode
    assert done.stderr.endswith("The link up0 is a port of another already\n")


def test_a_kernel_without_ipvlan(host, tree, name):
    probe = subprocess.run(
        host.enter("ip", "link", "add", "link", "up0", "name", "probe", "type", "ipvlan"),
        check=False,
        capture_output=True,
    )
    command = run_command(host, tree, name, "--network-ipvlan=up0")
    if probe.returncode == 0:
        host.ip("link delete probe")
        with running(command, tree) as inside:
            assert inside["iv-up0"]["mode"] == "l2"
        return
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert "This kernel has no links of type ipvlan" in done.stderr


def test_a_network_namespace_that_exists(host, tree, name):
    with network() as other:
        other.ip("link add there type bridge")
        option = f"--network-namespace-path={other.path}"
        with running(run_command(host, tree, name, option), tree) as inside:
            assert inside.keys() == {"there"}
        assert other.links().keys() == {"there"}


def test_the_link_layer_s_address_can_be_given(host, tree, name):
    address = "02:00:5e:00:53:01"
    command = host.enter(
        *(*COMMAND, "run", "-D", tree, "-M", name, "--network-veth"),
        *("/bin/sh", "-c", "exec cat /sys/class/net/host0/address"),
    )
    given = ENVIRONMENT | {"SYSTEMD_NSPAWN_NETWORK_MAC": address.upper()}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=given)
    assert done.stdout.strip() == address
    given["SYSTEMD_NSPAWN_NETWORK_MAC"] = "02:00:5e:00:53"
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=given)
    assert done.returncode
    assert "expected a link-layer address" in done.stderr


def test_a_failure_after_the_links_leaves_none(host, tree, name):
    command = run_command(host, tree, name, "--network-zone=shared", "--network-interface=up1")
    for step in ("hold-network", "move-link up1", "make-zone", f"add-veth vb-{name}"):
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=ENVIRONMENT | {"PYMACHINE_TEST_FAIL": f"{step}:5"},
        )
        assert "injected" in done.stderr
        assert host.links().keys() == {"br9", "up0", "up1"}


def test_machined_learns_of_the_link(host, pymachine, tree, name, manager):
    if manager != "systemd":
        pytest.skip("needs systemd-machined")
    command = host.enter(*COMMAND, "boot", "-D", tree, "-M", name, "--network-veth")
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    try:
        index = subprocess.run(
            host.enter("ip", "-o", "link", "show", f"ve-{name}"),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.partition(":")[0]
        words = [*COMMAND, "show", name, "-p", "NetworkInterfaces"]
        shown = subprocess.run(words, check=True, capture_output=True, text=True)
        assert shown.stdout.strip() == f"NetworkInterfaces={index}"
        # machinectl has no words for an array of numbers.
        words = ["busctl", "call", *MACHINED, "GetMachine", "s", name]
        found = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        path = found.split('"')[1]
        words = ["busctl", "get-property", MACHINED[0], path, f"{MACHINED[0]}.Machine"]
        words.append("NetworkInterfaces")
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        assert told == f"ai 1 {index}\n"
    finally:
        pymachine("terminate", name)
