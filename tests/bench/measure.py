"""How things are measured here: interleaved pairs of whole processes, medians, ratios."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Measurement = Callable[[], float]

ROUNDS = 21
HEADER = f"{'':<52} {'pymachine':>9} {'peer':>8} {'ratio':>6} {'goal':>5}"


def milliseconds(command: Sequence[object]) -> float:
    """Run a command to its end; return how long it took.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return (time.monotonic() - begun) * 1000


def compare(
    title: str, goal: float, ours: Measurement, theirs: Measurement, rounds: int = ROUNDS
) -> None:
    """Measure both in turn, so that what else the machine does falls on both; print a row."""
    ours(), theirs()  # caches are warm for both
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    row(title, goal, one, other)


def row(title: str, goal: float, ours: float, theirs: float) -> None:
    """Print one comparison; the goal is the highest ratio that is good enough, 0 if none is set."""
    ratio = ours / theirs
    verdict = "" if ratio <= goal or not goal else "  not reached"
    shown = f"{goal:5.2f}" if goal else ""
    print(f"{title:<52} {ours:9.1f} {theirs:8.1f} {ratio:6.3f} {shown}{verdict}", flush=True)


def alone(title: str, ours: Measurement, rounds: int = ROUNDS) -> None:
    """Print a row for what has no peer."""
    ours()
    print(f"{title:<52} {statistics.median(ours() for _ in range(rounds)):9.1f}", flush=True)


def proportional_set_size(pid: int) -> float:
    """Return the PSS of a process in MB; /proc/PID/smaps_rollup of proc_pid_smaps(5).

    Raises:
        OSError: there is no such process.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
