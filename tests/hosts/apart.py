"""Tests apart from the rest of the machine: own mounts, own cgroup, orphans that come home."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path

from tests.hosts import leftovers

CLONE_NEWNS = 0x00020000
# Where images and machines are kept.
STORES = ("/var/lib/machines", "/var/lib/pymachine")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# What ends a run, besides SIGINT; whoever sends it may send it to all of us at once.
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_libc = ctypes.CDLL(None, use_errno=True)


def private_mounts() -> None:
    """Go into a mount namespace of our own, shared again below, as a booted host's is."""
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    # Trees and hosts of others who test meanwhile: the kernel takes the mounts of every namespace
    # off a directory that is removed (rmdir(2) since Linux 3.18), which would look like our doing.
    for pattern in ("pymachine-tree-*", "pymachine-host-*/root"):
        for path in Path("/var/tmp").glob(pattern):
            for _layer in ("overlay", "its tmpfs"):
                subprocess.run(["umount", "--recursive", "--lazy", "--quiet", path], check=False)
    subprocess.run(["mount", "--make-rshared", "/"], check=True)


def private_state() -> None:
    """Hide the images and the state of machines that are here already, and ours from them."""
    for path in ("/run/pymachine", "/run/systemd/nspawn", "/etc/pymachine", *STORES):
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)


def systemd_runs() -> bool:
    """Say whether systemd is PID 1; sd_booted(3)."""
    return os.path.isdir("/run/systemd/system") and (
        Path("/proc/1/comm").read_text() == "systemd\n"
    )


def cgroup2_root() -> str:
    """Return where the cgroup2 hierarchy is mounted."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return next(line.split(" ")[4] for line in mounts if " - cgroup2 " in line)


def enter_own_cgroup() -> tuple[Path, Path]:
    """Go into a new cgroup2 below the root; return it and the one we were in.

    systemd-nspawn with --keep-unit makes the cgroups `supervisor` and `payload` in its caller's,
    and two callers in one, such as the root, would be in each other's way.
    """
    root = cgroup2_root()
    before = Path(root + Path("/proc/self/cgroup").read_text().partition("0::")[2].strip())
    leftovers.sweep(Path(root))
    own = Path(root, f"pymachine-tests-{os.getpid()}")
    own.mkdir()
    Path(own, "cgroup.procs").write_text(str(os.getpid()))
    return own, before


def leave_own_cgroup(own: Path, before: Path) -> None:
    """Go back, and remove our cgroup with all that is in it."""
    Path(before, "cgroup.procs").write_text(str(os.getpid()))
    leftovers.kill_all(own)
    for path in (own, leftovers.V1_HIERARCHY / own.name):
        leftovers.remove_cgroup(path)


def become_child_of_a_reaper() -> int:
    """Return in a new child; the caller stays as its parent, and as the parent of all orphans.

    Supervisors outlive the commands that started them. As children of the reaper, a
    subreaper (prctl(2)), they can be told from all other processes of the machine; it waits for
    them as PID 1 would, and kills those that outlive the tests. Returns the reaper's PID.
    """
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    reaper = os.getpid()
    # Where systemd runs, cgroups are its own, and we are in one of our unit.
    cgroups = None if systemd_runs() else enter_own_cgroup()
    child = os.fork()
    if child == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # Caught, not ignored: so the programs that are tested have the default.
        for number in _ENDING:
            signal.signal(number, lambda *_: None)
        return reaper
    code = _reap_until_end_of(child)
    if cgroups:
        leave_own_cgroup(*cgroups)
    os._exit(code if code >= 0 else 128 - code)


def _reap_until_end_of(child: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well
    for number in _ENDING:  # whose fixtures clean up
        signal.signal(number, lambda *_: os.kill(child, signal.SIGINT))
    while True:
        pid, status = os.wait()
        if pid == child:
            _end_children()
            return os.waitstatus_to_exitcode(status)


def _end_children() -> None:
    while True:
        for pid in Path("/proc/thread-self/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def descendants(pid: int) -> dict[int, int]:
    """Return the living processes below a process, with their start times; proc_pid_stat(5)."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            parents[int(entry)] = (int(fields[1]), int(fields[19]))
    found: dict[int, int] = {}
    level = {pid}
    while level:
        level = {child for child, (parent, _) in parents.items() if parent in level}
        found |= {child: parents[child][1] for child in level}
    return found
