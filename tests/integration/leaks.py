"""What a test may not leave behind, as the kernel and the disk show it."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from tests.hosts.apart import cgroup2_root, descendants

# Seconds. The kernel takes mounts, links and cgroups down after the last process is gone, and
# systemd collects its units after that: on a busy host all that may wait for its turn.
PATIENCE = 10.0

DIRECTORIES = (
    "/run/pymachine",
    "/run/systemd/nspawn",
    "/run/systemd/machines",
    "/run/systemd/transient",
    "/run/netns",
    "/var/lib/machines",
    *(f"/var/lib/pymachine/{place}" for place in ("machines", "layers", "tmp")),
)


def snapshot(reaper: int, images: str = "/") -> Counter[str]:
    """Return a line for each thing there is now.

    Args:
        reaper: the process below which all processes are of the tests.
        images: the directory with the disk images of the tests, since loop devices are the
            kernel's and not of one host.
    """
    ours = descendants(reaper)
    for pid in _ancestry(os.getpid()):
        ours.pop(pid, None)
    found = Counter(f"process {pid} {_command(pid)}" for pid in ours)
    found.update(_mounts())
    found.update(_loops(images))
    found.update(_cgroups(set(ours)))
    found.update(f"link {name}" for name in os.listdir("/sys/class/net"))
    for directory in DIRECTORIES:
        found.update(_files(directory))
    return found


def leaked(before: Counter[str], reaper: int, images: str = "/") -> list[str]:
    """Return what is there now and was not before, after some patience; and mounts that went."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = snapshot(reaper, images)
        lost = [f"gone: {line}" for line in (before - now) if line.startswith("mount ")]
        left = sorted([*(now - before).elements(), *lost])
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _ancestry(pid: int) -> list[int]:
    found = []
    while pid > 1:
        found.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _mounts() -> list[str]:
    """Return the mounts by what lasts: not by their numbers, but by their propagation's kind."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        front, _, back = line.partition(" - ")
        _id, _parent, _device, root, target, _options, *optional = front.split(" ")
        kind, source, _super = back.split(" ", 2)
        propagation = ",".join(word.partition(":")[0] for word in optional) or "private"
        found.append(f"mount {kind} {source}{root} on {target} {propagation}")
    return found


def _loops(images: str) -> list[str]:
    """Return the loop devices that are attached to images, and our devices of device mapper."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    found = [f"loop {path.parts[3]} {_text(path)}" for path in backing]
    mapped = (f"dm {_text(path)}" for path in Path("/sys/block").glob("dm-*/dm/name"))
    return [
        *(line for line in found if f" {images}" in line),
        *(line for line in mapped if "pymachine-" in line),
    ]


def _lock_name(status: os.stat_result) -> str:
    """Return what /proc/locks calls a file; proc_locks(5). Inodes alone have equals elsewhere."""
    device = status.st_dev
    return f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # detached meanwhile
        return ""


def _cgroups(ours: set[int]) -> list[str]:
    """Return the cgroups of machines but of those in which others live, which are not ours."""
    root = cgroup2_root()
    found = []
    # The last two are made by a systemd-nspawn with --keep-unit that was started in the root.
    for top in (
        f"{root}/{name}" for name in ("pymachine", "machine.slice", "payload", "supervisor")
    ):
        below = [directory for directory, _, _ in os.walk(top)]
        foreign = {_machine(path) for path in below if set(_pids(path)) - ours}
        kept = f"{root}/machine.slice"  # by systemd, for the next machine
        # Above the machines, a cgroup is left if all that is in it is.
        busy = {path for path in below for other in foreign if other.startswith(path)}
        found += [
            f"cgroup {path}"
            for path in below
            if path != kept and path not in busy and _machine(path) not in foreign
        ]
    return found


def _machine(path: str) -> str:
    """Return the cgroup of the machine that a cgroup belongs to; itself if to none."""
    parts = path.split("/")
    for count, name in enumerate(parts, 1):
        if name.endswith((".machine", ".scope")):
            return "/".join(parts[:count])
    return path


def _pids(path: str) -> list[int]:
    try:
        return [int(word) for word in Path(path, "cgroup.procs").read_text().split()]
    except OSError:  # gone meanwhile, or threaded
        return []


def _files(directory: str) -> list[str]:
    """Return the files below a directory, but locks that somebody holds: a holder is a process."""
    held = {
        line.split()[-3]
        for line in Path("/proc/locks").read_text().splitlines()
        if "->" not in line
    }
    found = []
    deep = not directory.startswith("/var/lib/")
    for parent, directories, files in os.walk(directory):
        if not deep:
            found += [f"file {parent}/{name}" for name in (*directories, *files)]
            break
        for name in files:
            path = Path(parent, name)
            try:
                if _lock_name(path.lstat()) not in held:
                    found.append(f"file {path}")
            except FileNotFoundError:
                continue
        kept = parent == directory or os.path.dirname(parent) == directory  # for the next machine
        if not (kept or directories or files):
            found.append(f"directory {parent}")
    return found
