#!/usr/bin/python3
"""Run tests in a container host: a Debian tree booted so that systemd is its PID 1.

    host.py [--suite=SUITE] [--host-by=nspawn] -- [OPTION OF PYTEST…]
    host.py [--suite=SUITE] [--host-by=nspawn] --command -- COMMAND [ARGUMENT…]
    host.py [--suite=SUITE] [--host-by=nspawn] --shell

The host is an overlay on a tree (see `trees.py`); the source tree is at /srv/pymachine in it,
under an overlay too, so that nothing the tests write comes back. All mounts are made in a
namespace of this process and end with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.hosts import apart, leftovers, overlay, trees  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = "/srv/pymachine"
BOOT_TIMEOUT = 60.0
_LOOP_DEVICES = 16
_TREES = ("host", "bench", "resolved")


class HostError(Exception):
    """The container host does not come up or go down; its log says why."""


def prepare(root: Path, kind: str, suite: str) -> None:
    """Mount the host's tree, the source tree in it, and the trees of machines.

    Temporary layers of machines are made in /var/tmp, and an overlay takes none of another.
    """
    overlay.mount_copy(trees.build(kind, suite), root)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "var/tmp"], check=True
    )
    # Tests start one of their own.
    Path(root, "etc/systemd/system/docker-registry.service").symlink_to("/dev/null")
    source = Path(f"{root}{INSIDE}")
    source.mkdir(parents=True)
    overlay.mount_copy(REPOSITORY, source)
    inner = Path(f"{root}{trees.CACHE}")
    inner.mkdir(parents=True)
    subprocess.run(["mount", "--bind", trees.CACHE, inner], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", inner], check=True)


@contextmanager
def booted_by_nspawn(root: Path, log: Path) -> Iterator[int]:
    """Boot the host by systemd-nspawn; give the PID of its init, stop it at the end."""
    environment = os.environ | {
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
        "SYSTEMD_SECCOMP": "0",
    }
    cgroups = apart.enter_own_cgroup()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"),
                *("--machine=pymachine-host", "--capability=all", "--private-network"),
                *("--console=read-only", f"--directory={root}"),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield wait_for_init(process)
    finally:
        process.send_signal(signal.SIGTERM)  # an orderly poweroff; systemd-nspawn(1)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        apart.leave_own_cgroup(*cgroups)


def wait_for_init(process: subprocess.Popen[bytes]) -> int:
    """Return the PID of the init below a process of systemd-nspawn, when it can be talked to."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/root/run/systemd/private").exists():
            return int(children[0])
        time.sleep(0.02)
    raise HostError("the container host does not boot")


@contextmanager
def booted_by_pymachine(root: Path, log: Path) -> Iterator[int]:
    """Boot the host by this source tree itself; give the PID of its init, stop it at the end."""
    name = f"test-host-{os.getpid()}"
    # Both are systemd-nspawn's: machines inside want to write /proc/sys and all system calls.
    environment = os.environ | {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes", "SYSTEMD_SECCOMP": "0"}

    def pymachine(*words: str) -> str:
        shown = subprocess.run(
            ["/usr/bin/python3", "-SI", f"{REPOSITORY}/packaging/pymachine", *words],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        if shown.returncode != 0:
            log.write_text(shown.stdout + shown.stderr)
            raise HostError(f"pymachine {words[0]} failed")
        return shown.stdout

    pymachine("boot", "-D", str(root), "-M", name, "--capability=all", "--private-network")
    try:
        yield int(pymachine("show", name, "-p", "Leader", "--value"))
    finally:
        pymachine("poweroff", name)


BOOTED_BY = {"pymachine": booted_by_pymachine, "nspawn": booted_by_nspawn}


def enter(init: int) -> list[str]:
    """Return the words before a command that is to run in the host's namespaces."""
    return ["nsenter", f"--target={init}", "--all"]


def wait_until_up(init: int) -> None:
    """Wait until the host has started all its units."""
    command = ["systemctl", "is-system-running", "--wait", "--quiet"]
    subprocess.run([*enter(init), *command], check=False, timeout=BOOT_TIMEOUT)


def make_loop_devices(init: int) -> None:
    """Make nodes of loop devices in the host; the devices are the kernel's, so shared with us.

    Of its own, as the nodes of devtmpfs come and go with the devices.
    """
    control = Path("/dev/loop-control")
    if not control.exists():
        return
    number = control.stat().st_rdev
    nodes = [("loop-control", "c", os.major(number), os.minor(number))]
    nodes += [(f"loop{minor}", "b", 7, minor) for minor in range(_LOOP_DEVICES)]
    for name, *what in nodes:
        made = ["mknod", "--mode=600", f"/dev/{name}", *map(str, what)]
        subprocess.run([*enter(init), *made], check=False)


def run_inside(root: Path, init: int, command: list[str], *, terminal: bool = False) -> int:
    """Run a command in the host as a unit of it, our output its own; return its exit status.

    The status comes by a file: that of systemd-run is 0 when the host goes down under it. The
    output does too but for a terminal's: `systemd-run --pipe --wait` is told of the end by the
    message bus, and tests restart that.
    """
    names = ("PYMACHINE_TEST_TREE", "PYMACHINE_TEST_SUITE", "TERM", "COLUMNS")
    kept = [f"--setenv={name}" for name in names if name in os.environ]
    unit = ["systemd-run", "--quiet", "--collect", f"--working-directory={INSIDE}", *kept]
    shell = ["/bin/sh", "-c", '"$@"; echo $? >/srv/status', "sh", *command]
    if terminal:
        subprocess.run([*enter(init), *unit, "--pty", "--wait", *shell], check=False)
    else:
        output = [f"--property=Standard{name}=append:/srv/output" for name in ("Output", "Error")]
        ended = "--property=ExecStopPost=/bin/touch /srv/ended"
        subprocess.run([*enter(init), *unit, *output, ended, *shell], check=True)
        copy_output(root, init)
    try:
        return int(Path(root, "srv/status").read_text())
    except FileNotFoundError as error:
        raise HostError("the tests did not come to their end") from error


def copy_output(root: Path, init: int) -> None:
    """Copy the host's /srv/output to ours, until its /srv/ended is there or it ends."""
    output, ended = Path(root, "srv/output"), Path(root, "srv/ended")
    position = 0
    while True:
        over = ended.exists() or not Path(f"/proc/{init}").exists()
        if output.exists():
            with output.open("rb") as file:
                file.seek(position)
                data = file.read()
            position += len(data)
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        if over:
            return
        time.sleep(0.05)


def main() -> int:
    """Boot a host, run what was asked in it, stop it."""
    parser = argparse.ArgumentParser(description="Run tests in a container host.")
    parser.add_argument("--suite", default="", help="of the host's tree; default: as this host's")
    parser.add_argument("--tree", choices=_TREES, default="host", help="see trees.py")
    parser.add_argument("--host-by", choices=BOOTED_BY, default="pymachine", help="who boots it")
    parser.add_argument("--shell", action="store_true", help="a shell instead of tests")
    parser.add_argument("--command", action="store_true", help="WORD… is a command, not pytest's")
    parser.add_argument("words", nargs="*", metavar="WORD", help="options of pytest")
    arguments = parser.parse_args()
    pytest = [] if arguments.command else ["/usr/bin/python3", "-m", "pytest"]
    command = ["/bin/bash"] if arguments.shell else [*pytest, *arguments.words]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    apart.private_mounts()
    with tempfile.TemporaryDirectory(
        prefix=f"pymachine-host-{os.getpid()}-", dir="/var/tmp"
    ) as work:
        root, log = Path(work, "root"), Path(work, "console")
        root.mkdir()
        prepare(root, arguments.tree, arguments.suite)
        started = time.monotonic()
        try:
            with BOOTED_BY[arguments.host_by](root, log) as init:
                wait_until_up(init)
                make_loop_devices(init)
                print(f"host booted in {time.monotonic() - started:.1f} s", flush=True)
                return run_inside(root, init, command, terminal=arguments.shell)
        except HostError as error:
            sys.stderr.write(log.read_text(errors="replace"))
            print(f"host.py: {error}", file=sys.stderr)
            return 1
        finally:
            for _layer in ("overlay", "its tmpfs"):
                subprocess.run(["umount", "--recursive", "--lazy", root], check=True)
            leftovers.sweep_v1()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except trees.TreeError as error:
        sys.exit(f"host.py: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
