"""What is done with machines that run, compared with systemd's tools; wants systemd as PID 1."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from contextlib import ExitStack, contextmanager

from tests.bench.measure import alone, compare, milliseconds, proportional_set_size, row
from tests.bench.peers import PYMACHINE, pymachine
from tests.hosts import overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = f"bench{os.getpid()}"
MANY = 10


@contextmanager
def ours(tree: Path, name: str) -> Iterator[int]:
    """Boot a machine of ours; give its supervisor's PID."""
    with overlay.private_copy(tree) as root:
        pymachine("boot", "-q", "-D", root, "-M", name)
        try:
            yield int(pymachine("show", name, "-p", "Supervisor", "--value"))
        finally:
            pymachine("poweroff", name)


@contextmanager
def nspawned(tree: Path, name: str) -> Iterator[int]:
    """Boot a machine by systemd-nspawn as a service; give the PID of systemd-nspawn."""
    unit = f"{name}.service"
    # As in systemd-nspawn@.service; by "mixed" the init inside is not told SIGTERM, but asked.
    properties = ("Type=notify", "Delegate=yes", "KillMode=mixed")
    service = ["systemd-run", "--quiet", f"--unit={unit}", *(f"-p{one}" for one in properties)]
    own = ["--keep-unit", "--boot", "--notify-ready=yes", "--console=read-only", "-M", name]
    with overlay.private_copy(tree) as root:
        command = [*service, "systemd-nspawn", "--quiet", *own, "-D", root]
        subprocess.run(command, check=True)
        try:
            shown = ["systemctl", "show", unit, "-p", "MainPID", "--value"]
            yield int(subprocess.run(shown, check=True, capture_output=True).stdout)
        finally:
            subprocess.run(["systemctl", "stop", unit], check=True)


def compare_verbs(tree: Path) -> None:
    """Compare what enters and lists machines, with three of them."""
    with ExitStack() as machines:
        for number in range(3):
            machines.enter_context(ours(tree, f"{NAME}-{number}"))
        name = f"{NAME}-0"
        execute = [*PYMACHINE, "exec", name, "true"]
        shell = ["machinectl", "--quiet", "shell", name, "/bin/true"]
        service = ["systemd-run", "--quiet", "-M", name, "--wait", "/bin/true"]
        listed, theirs = [*PYMACHINE, "list"], ["machinectl", "list"]
        compare(
            "exec true, machinectl shell",
            0.5,
            lambda: milliseconds(execute),
            lambda: milliseconds(shell),
        )
        compare(
            "exec true, systemd-run -M --wait",
            0.8,
            lambda: milliseconds(execute),
            lambda: milliseconds(service),
        )
        compare(
            "list of three, machinectl list",
            1.0,
            lambda: milliseconds(listed),
            lambda: milliseconds(theirs),
        )


def compare_memory(tree: Path) -> None:
    """Compare the memory of what supervises a machine, ten of them running."""
    sizes = []
    for kind in (ours, nspawned):
        with ExitStack() as machines:
            pids = [machines.enter_context(kind(tree, f"{NAME}-{n}")) for n in range(MANY)]
            time.sleep(1)
            sizes.append(statistics.mean(proportional_set_size(pid) for pid in pids))
    row(f"PSS of a supervisor of {MANY}, MB", 3.0, *sizes)


def measure_poweroff(tree: Path) -> None:
    """Measure how long a poweroff takes, to nothing left; no peer's verb waits for that."""
    with overlay.private_copy(tree) as root:

        def once() -> float:
            pymachine("boot", "-q", "-D", root, "-M", NAME)
            return milliseconds([*PYMACHINE, "poweroff", NAME])

        alone("poweroff", once, rounds=5)
