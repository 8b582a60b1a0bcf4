"""What test runs that were killed with SIGKILL could not clean up, removed by the next one.

All of it has the PID of its run in its name; where that lives no more, nobody else will come.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

PLACE = Path("/var/tmp")
# systemd-nspawn makes its cgroups by the same path in systemd's own v1 hierarchy, and leaves them.
V1_HIERARCHY = Path("/sys/fs/cgroup/systemd")
_DIRECTORY = re.compile(r"pymachine-[a-z]+-(\d+)-.*")
_RUN = re.compile(r"pymachine-tests-(\d+)")
_MACHINE = re.compile(r"test-(\d+)-\d+\.machine")


def make_directory(what: str) -> Path:
    """Make a directory for what this run makes, to be removed by it, or by a later one."""
    return Path(tempfile.mkdtemp(prefix=f"pymachine-{what}-{os.getpid()}-", dir=PLACE))


def sweep(cgroups: Path) -> None:
    """Remove what runs that are dead have left, and end what lives on in it.

    Args:
        cgroups: where the cgroup2 hierarchy is mounted.
    """
    machines = _dead(cgroups / "pymachine", _MACHINE)
    for path in (*_dead(cgroups, _RUN), *machines):
        with contextlib.suppress(OSError):  # another run removes it
            kill_all(path)
            remove_cgroup(path)
    if machines:
        with contextlib.suppress(OSError):  # there are others
            (cgroups / "pymachine").rmdir()
    for path in _dead(PLACE, _DIRECTORY):
        subprocess.run(["rm", "-rf", "--one-file-system", path], check=False, capture_output=True)
    sweep_v1()


def sweep_v1() -> None:
    """Remove what systemd-nspawn made in systemd's v1 hierarchy, here and in container hosts.

    These do not see that hierarchy, nor could they remove anything from it.
    """
    left = [*_dead(V1_HIERARCHY, _RUN), *V1_HIERARCHY.glob("machine.slice/machine-test*.scope")]
    for path in left:
        with contextlib.suppress(OSError):  # something lives in it
            remove_cgroup(path)
    if left:
        with contextlib.suppress(OSError):  # there are others
            (V1_HIERARCHY / "machine.slice").rmdir()


def kill_all(cgroup: Path) -> None:
    """Kill what lives in a cgroup2, and wait until nothing does."""
    (cgroup / "cgroup.kill").write_text("1")
    while "populated 1" in (cgroup / "cgroup.events").read_text():
        time.sleep(0.005)


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup in which nothing lives, and those below it.

    Raises:
        OSError: EBUSY, something does.
    """
    for directory, _, _ in os.walk(path, topdown=False):
        Path(directory).rmdir()


def _dead(directory: Path, name: re.Pattern[str]) -> list[Path]:
    """Return what is named after a process that is gone."""
    entries = os.listdir(directory) if directory.is_dir() else []
    found = ((entry, name.fullmatch(entry)) for entry in entries)
    return [directory / entry for entry, m in found if m and not Path(f"/proc/{m[1]}").exists()]
