"""What a network costs: at a machine's start, and for packets; wants systemd as PID 1, and lxc."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.measure import ROUNDS, milliseconds, row
from tests.bench.peers import NSPAWN, PYMACHINE, boot_nspawn, boot_ours, pymachine
from tests.hosts import overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Command = Sequence[object]
    Pair = tuple[Callable[[], float], Callable[[], float]]

NAME = f"bench{os.getpid()}"
NEIGHBOUR = f"{NAME}n"  # has the network be up
PORT, INNER_PORT = 5200, 5201  # of the host, and of iperf3
VOLUME = 1 << 30  # bytes that are sent to measure throughput
ROUND_TRIPS = 3  # seconds
PATIENCE = 20.0  # seconds
BOOT_ROUNDS, PACKET_ROUNDS = 11, 7
OUTSIDE = "pymachine-bench"  # a network namespace
OUTSIDE_HOST, OUTSIDE_CLIENT = "192.0.2.1", "192.0.2.2"
LXC_CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{root}
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
"""
LXC_NONE = "lxc.net.0.type = none\n"
LXC_VETH = "lxc.net.0.type = veth\nlxc.net.0.flags = up\n"
LXC_BRIDGED = LXC_VETH + (
    "lxc.net.0.link = lxcbr0\nlxc.net.0.ipv4.address = 10.0.3.2/24\nlxc.net.0.ipv4.gateway = auto\n"
)


def compare_networks(tree: Path) -> None:
    """Compare starts, then packets."""
    with ExitStack() as copies:
        root = copies.enter_context(overlay.private_copy(tree))
        neighbour = copies.enter_context(overlay.private_copy(tree))
        compare_starts(root, neighbour)
        compare_packets(root)


# The time that a network adds to a start.


@contextmanager
def lxc(root: Path, network: str) -> Iterator[list[object]]:
    """Give the words that tell lxc of a container."""
    with tempfile.TemporaryDirectory(prefix="pymachine-lxc-") as directory:
        Path(directory, NAME).mkdir()
        text = LXC_CONFIG.format(name=NAME, root=root) + network
        Path(directory, NAME, "config").write_text(text)
        yield ["-P", directory, "-n", NAME]


def added(title: str, ours: Pair, theirs: Pair, rounds: int = ROUNDS) -> None:
    """Print what a network adds to a start of ours and of a peer's.

    The difference of lower quartiles: it is small against a start, and what else runs only adds.

    Args:
        title: of the row.
        ours: a start with a network, and one without.
        theirs: the same of the peer.
        rounds: how often each is measured, in turn.
    """
    starts = (*ours, *theirs)
    for start in starts:  # caches are warm for all
        start()
    found = list(zip(*([start() for start in starts] for _ in range(rounds)), strict=True))
    linked, alone, their_linked, their_alone = (
        statistics.quantiles(column, n=4)[0] for column in found
    )
    row(title, 1.0, linked - alone, their_linked - their_alone)


def whole(command: Command) -> Callable[[], float]:
    """Return what measures a command to its end."""
    return lambda: milliseconds(command)


def compare_starts(root: Path, neighbour: Path) -> None:
    """Compare what each kind of network adds to a boot, and to /bin/true with its tear-down."""

    def boot(*options: str) -> Callable[[], float]:
        return lambda: boot_ours(root, NAME, *options)

    def boot_theirs(*options: str) -> Callable[[], float]:
        return lambda: boot_nspawn(root, NAME, *options)

    def run(*options: str) -> Callable[[], float]:
        return whole([*PYMACHINE, "run", "-D", root, "-M", NAME, *options, "/bin/true"])

    def run_theirs(*options: str) -> Callable[[], float]:
        return whole([*NSPAWN, "-D", root, "-M", NAME, *options, "/bin/true"])

    veth, peer = "--network-veth", "systemd-nspawn --network-veth"
    with ExitStack() as stack:
        words = [stack.enter_context(lxc(root, one)) for one in (LXC_BRIDGED, LXC_VETH, LXC_NONE)]
        bridged, linked, alone = (whole(["lxc-start", *w, "-F", "--", "/bin/true"]) for w in words)
        theirs = (boot_theirs(veth), boot_theirs())
        added(f"boot {veth}, {peer}", (boot(veth), boot()), theirs, BOOT_ROUNDS)
        added(f"run {veth}, {peer}", (run(veth), run()), (run_theirs(veth), run_theirs()))
        added(f"run {veth}, lxc-start", (run(veth), run()), (linked, alone))
        # As lxc's bridge, rules and dnsmasq are up from the host's boot.
        stack.enter_context(running_ours(neighbour, NEIGHBOUR, "--network"))
        added(f"boot --network, {peer}", (boot("--network"), boot()), theirs, BOOT_ROUNDS)
        added("run --network, lxc-start with lxcbr0", (run("--network"), run()), (bridged, alone))


# Packets.


@contextmanager
def running_ours(root: Path, name: str, *options: str) -> Iterator[int]:
    """Run a machine of ours; give its leader."""
    words = ["run", "-D", root, "-M", name, "--console=pipe", *options, "/bin/sleep", "infinity"]
    with ending(subprocess.Popen([*PYMACHINE, *words])):
        yield wait_for(lambda: int(shown(name) or 0))


def shown(name: str) -> str:
    command = [*PYMACHINE, "show", name, "-p", "Leader", "--value"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


@contextmanager
def running_nspawn(root: Path, *options: str) -> Iterator[int]:
    """Run one by systemd-nspawn; give its leader."""
    words = ["-D", root, "-M", NAME, "--console=pipe", *options, "/bin/sleep", "infinity"]
    with ending(subprocess.Popen([*NSPAWN, *words], stderr=subprocess.DEVNULL)) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        host = os.stat("/proc/self/ns/net").st_ino

        def leader() -> int:
            found = [int(pid) for pid in children.read_text().split()]
            return next((one for one in found if network_of(one) not in (0, host)), 0)

        yield wait_for(leader)


def network_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


@contextmanager
def running_lxc(root: Path, network: str) -> Iterator[int]:
    """Run one by lxc; give its leader."""
    with lxc(root, network) as words:
        subprocess.run(["lxc-start", *words, "-d", "--", "/bin/sleep", "infinity"], check=True)
        try:
            told = ["lxc-info", *words, "-pH"]
            yield int(subprocess.run(told, check=True, capture_output=True).stdout)
        finally:
            subprocess.run(["lxc-stop", *words, "-k"], check=True)


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(condition: Callable[[], int]) -> int:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("a machine does not start")
        time.sleep(0.02)
    return found


def ip(words: str, *namespace: object) -> None:
    subprocess.run([*map(str, namespace), "ip", *words.split()], check=True)


def inside(leader: int) -> list[object]:
    return ["nsenter", f"--target={leader}", "--net"]


def set_addresses(leader: int, here: str) -> str:
    """Give both ends of a veth pair addresses; return that inside."""
    ip(f"address add 10.99.0.1/24 dev {here}")
    ip(f"link set {here} up")
    link = "eth0" if Path(f"/proc/{leader}/net/dev").read_text().count("eth0:") else "host0"
    ip(f"address add 10.99.0.2/24 dev {link}", *inside(leader))
    ip(f"link set {link} up", *inside(leader))
    ip("route add default via 10.99.0.1", *inside(leader))
    return "10.99.0.2"


def leased(name: str) -> str:
    """Return the IPv4 address of a machine of ours in the default network."""
    (network,) = json.loads(pymachine("network", "show", "default", "--json=short"))
    return next(one["addresses"][0] for one in network["leases"] if one["machine"] == name)


def iperf(leader: int, address: str, port: int, *client: object) -> tuple[float, float]:
    """Return the milliseconds that a gigabyte takes, and microseconds of a round trip."""
    server = ["iperf3", "--server", "--port", INNER_PORT]
    command = [*inside(leader), *server]
    null = subprocess.DEVNULL
    with ending(subprocess.Popen(list(map(str, command)), stdout=null, stderr=null)):
        words = [*client, "iperf3", "--json", "--client", address, "--port", port]

        def measured(*options: object) -> dict[str, float]:
            done = subprocess.run(
                list(map(str, [*words, *options])), check=False, capture_output=True, text=True
            )
            told = json.loads(done.stdout or "{}")
            return told["end"]["streams"][0]["sender"] if told.get("end") else {}

        wait_for(lambda: bool(measured("--bytes", 1 << 16)))
        sent = measured("--bytes", VOLUME)
        # Small packets, far below what goes through.
        asked = measured("--bitrate", "1M", "--length", 64, "--time", ROUND_TRIPS, "--no-delay")
        return sent["seconds"] * 1000 * (1 << 30) / sent["bytes"], asked["mean_rtt"]


def alternate(title: str, ours: Callable[[], tuple[float, float]], **peers: Callable) -> None:
    """Measure all in turn, and print a row of each measure for each peer."""
    rounds = [[measure() for measure in (ours, *peers.values())] for _ in range(PACKET_ROUNDS)]
    columns = list(zip(*rounds, strict=True))
    for index, unit in enumerate(("ms for 1 GiB", "µs of a round trip")):
        one, *others = [statistics.median(each[index] for each in column) for column in columns]
        for peer, other in zip(peers, others, strict=True):
            row(f"{title}, {unit}, {peer}", 1.0, one, other)


@contextmanager
def outside() -> Iterator[list[object]]:
    """Give a client that comes by a link of the host's."""
    ip(f"netns add {OUTSIDE}")
    client = ["ip", "netns", "exec", OUTSIDE]
    try:
        ip(f"link add bench0 type veth peer name bench1 netns {OUTSIDE}")
        ip(f"address add {OUTSIDE_HOST}/24 dev bench0")
        ip("link set bench0 up")
        ip(f"address add {OUTSIDE_CLIENT}/24 dev bench1", *client)
        ip("link set bench1 up", *client)
        yield client
    finally:
        ip(f"netns delete {OUTSIDE}")


def compare_packets(root: Path) -> None:
    """Compare links, bridges and forwarded ports."""

    def veth_ours() -> tuple[float, float]:
        with running_ours(root, NAME, "--network-veth") as leader:
            return iperf(leader, set_addresses(leader, f"ve-{NAME}"), INNER_PORT)

    def veth_nspawn() -> tuple[float, float]:
        with running_nspawn(root, "--network-veth") as leader:
            return iperf(leader, set_addresses(leader, f"ve-{NAME}"), INNER_PORT)

    def veth_lxc() -> tuple[float, float]:
        with running_lxc(root, f"{LXC_VETH}lxc.net.0.veth.pair = ve-{NAME}\n") as leader:
            return iperf(leader, set_addresses(leader, f"ve-{NAME}"), INNER_PORT)

    def bridge_ours() -> tuple[float, float]:
        with running_ours(root, NAME, "--network") as leader:
            return iperf(leader, leased(NAME), INNER_PORT)

    def bridge_lxc() -> tuple[float, float]:
        with running_lxc(root, LXC_BRIDGED) as leader:
            return iperf(leader, "10.0.3.2", INNER_PORT)

    alternate("over a veth", veth_ours, nspawn=veth_nspawn, lxc=veth_lxc)
    alternate("over a bridge", bridge_ours, lxc=bridge_lxc)
    with outside() as client:
        forward = f"tcp:{PORT}:{INNER_PORT}"

        def port_ours() -> tuple[float, float]:
            with running_ours(root, NAME, "--network", f"--port={forward}") as leader:
                return iperf(leader, OUTSIDE_HOST, PORT, *client)

        def port_nspawn() -> tuple[float, float]:
            with running_nspawn(root, "--network-veth", f"--port={forward}") as leader:
                set_addresses(leader, f"ve-{NAME}")
                return iperf(leader, OUTSIDE_HOST, PORT, *client)

        def port_lxc() -> tuple[float, float]:
            with running_lxc(root, LXC_BRIDGED) as leader, redirected("10.0.3.2"):
                return iperf(leader, OUTSIDE_HOST, PORT, *client)

        alternate("by a port", port_ours, nspawn=port_nspawn, lxc=port_lxc)


@contextmanager
def redirected(address: str) -> Iterator[None]:
    """Forward the port by hand, as lxc has no way to."""
    rule = f"tcp dport {PORT} dnat to {address}:{INNER_PORT}"
    table = f"table ip bench {{ chain in {{ type nat hook prerouting priority -100; {rule}; }}; }}"
    subprocess.run(["nft", table], check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete table ip bench"], check=True)
