"""What a machine looks like from inside: a probe run in it, and its words as comparable facts."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

from tests.conftest import COMMAND
from tests.hosts.apart import systemd_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Facts = dict[tuple[str, str], str]

PROBE = Path(__file__).with_name("probe.sh")
UUID = "0b5e7a51-2b4e-4d3c-9f0a-6a1d3c9e7f42"
HOSTNAME = "looked-at"
TIMEOUT = 90
UNIT = """\
[Unit]
Description=Look around
[Service]
ExecStart=/bin/sh /probe
ExecStopPost=/bin/systemctl --no-block poweroff
"""


def nspawn(root: Path, name: str, *words: str) -> list[str]:
    """Return a command of systemd-nspawn; where no systemd manages, it stays in our cgroup."""
    alone = [] if systemd_runs() else ["--register=no", "--keep-unit"]
    machine = [f"--machine={name}", f"--hostname={HOSTNAME}", f"--uuid={UUID}"]
    return ["systemd-nspawn", "--quiet", *alone, f"--directory={root}", *machine, *words]


def pymachine(root: Path, name: str, verb: str, *words: str) -> list[str]:
    """Return a command of ours."""
    machine = ["-M", name, f"--hostname={HOSTNAME}", f"--uuid={UUID}"]
    return [*COMMAND, verb, "-D", str(root), *machine, *words]


def prepare(root: Path, *, boot: bool) -> None:
    """Put the probe into a tree; as a service of its own if the tree will be booted."""
    shutil.copy(PROBE, root / "probe")
    own = [os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")]
    (root / "host-namespaces").write_text("\n".join(own) + "\n")
    if boot:
        units = root / "etc/systemd/system"
        (units / "probe.service").write_text(UNIT)
        wants = units / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "probe.service").symlink_to("../probe.service")


def be_strange() -> None:
    """Have a umask, ignored and blocked signals, and a descriptor that no payload should get."""
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGRTMIN + 4))
    os.dup2(os.open("/etc/passwd", os.O_RDONLY), 33)


def run(
    command: Sequence[str],
    *,
    terminal: bool = False,
    preexec_fn: Callable[[], None] | None = None,
) -> str:
    """Run a command to its end, on a terminal or with empty input; return what it printed."""
    environment = os.environ | {"TERM": "xterm-test", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    if not terminal:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=TIMEOUT,
            preexec_fn=preexec_fn,
            close_fds=False,
        )
        assert done.returncode == 0, (command, done.stdout)
        return done.stdout.decode(errors="replace")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    output = b""
    try:
        while data := os.read(master, 1 << 16):
            output += data
    except OSError:  # EIO: the last one has closed the terminal
        pass
    os.close(master)
    assert process.wait(TIMEOUT) == 0, output
    return output.decode(errors="replace")


def read_facts(root: Path) -> Facts:
    """Return what the probe has told.

    Left out is only what differs between two boots of anything: numbers of mounts, of their peer
    groups and of block devices, and where on the host the tree lies. A boot ID is told as "the
    host's" or "its own".
    """
    host_boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    facts: Facts = {}
    seen: Counter[str] = Counter()
    for line in (root / "probe.out").read_text().splitlines():
        section, _, rest = line.partition("\t")
        if section == "mount":
            key, value = _mount(rest, root)
            seen[key] += 1
            key += f" ({seen[key]})" if seen[key] > 1 else ""
        else:
            key, _, value = rest.partition("\t")
        if (section, key) == ("host", "boot-id"):
            value = "the host's" if value == host_boot else "its own"
        if section == "fd":
            value = re.sub(r"(pipe|socket):\[\d+\]", r"\1", value)
        facts[section, key] = value
    return facts


def differences(one: Path, other: Path) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what the probes of two trees have told differently: the fact, and both values."""
    ours, theirs = read_facts(one), read_facts(other)
    assert min(len(ours), len(theirs)) > 300  # the probes came to their ends
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            yield " ".join(key), ours.get(key), theirs.get(key)


def _mount(line: str, root: Path) -> tuple[str, str]:
    """Return target and the rest of a line of mountinfo; proc_pid_mountinfo(5)."""
    front, _, back = line.partition(" - ")
    _id, _parent, _device, part, target, options, *optional = front.split(" ")
    kind, source, more = back.split(" ", 2)
    propagation = ",".join(word.partition(":")[0] for word in optional) or "private"
    more = re.sub(re.escape(str(root)), "TREE", more)
    return target, f"{kind} {source} {part} {options} {more} {propagation}"
