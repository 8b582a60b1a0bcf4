"""`pymachine pull`: a real image from the host's mirrors, and each way in which it can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.kernel import mount
from tests.conftest import COMMAND

MACHINES = Path("/var/lib/machines")
LOG = Path("/var/log/pymachine/pull-pymtest.log")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root builds images")


@pytest.fixture
def machines():
    """A /var/lib/machines of its own; call it with a size in MB."""
    MACHINES.mkdir(mode=0o700, exist_ok=True)

    def limit(megabytes):
        mount.mount("tmpfs", str(MACHINES), "tmpfs", mount.MS_REMOUNT, f"size={megabytes}m")

    mount.mount("tmpfs", str(MACHINES), "tmpfs", 0, "size=1500m,mode=0700")
    yield limit
    mount.umount2(str(MACHINES))
    LOG.unlink(missing_ok=True)


def start(*arguments, **keywords):
    """Begin a pull; its output comes by `communicate`."""
    command = [*COMMAND, "pull", "debian", "--name=pymtest", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, **(pipes | keywords))


def wait_for(process, text):
    """Read the pull's messages until one holds the text."""
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the pull ended before '{text}'")


def builders():
    """Return the PIDs of programs that work on our image."""
    ours = f"{MACHINES}/.#pymtest.new".encode()
    pids = filter(str.isdigit, os.listdir("/proc"))
    return [int(pid) for pid in pids if ours in cmdline(pid).split(b"\0")]


def cmdline(pid):
    """Return the arguments of a process, none of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def assert_nothing_left():
    deadline = time.monotonic() + 5
    while builders() and time.monotonic() < deadline:  # the kernel kills a namespace in a moment
        time.sleep(0.02)
    assert not builders()
    assert os.listdir(MACHINES) == []
    assert ".#pymtest" not in Path("/proc/self/mountinfo").read_text()


def assert_one_line(error, text):
    messages = [line for line in error.splitlines() if line.startswith("pymachine: ")]
    assert len(messages) == 1, error
    assert text in messages[0]
    assert "Traceback" not in error


def test_image_is_whole_bootable_and_nobodys(machines, pymachine):
    done = pymachine("pull", "debian", "--name=pymtest", "--include=less", timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{MACHINES}/pymtest\n"
    assert os.listdir(MACHINES) == ["pymtest"]
    root = MACHINES / "pymtest"
    assert (root / "usr/lib/systemd/systemd").exists()
    assert (root / "usr/bin/less").exists()
    assert (root / "etc/machine-id").read_bytes() == b""
    assert not (root / "etc/hostname").exists()
    assert "root:!unprovisioned:" in (root / "etc/shadow").read_text()
    assert not list((root / "var/cache/apt/archives").glob("*.deb"))
    assert not list((root / "var/lib/apt/lists").glob("*Packages*"))
    assert list((root / "dev").glob("pts/*")) == []
    assert not LOG.exists()

    again = pymachine("pull", "debian", "--name=pymtest")
    assert again.returncode == 1
    assert_one_line(again.stderr, "exists already")
    assert (root / "usr/lib/systemd/systemd").exists()


def test_full_disk_is_told_and_leaves_nothing(machines, pymachine):
    for size in (30, 120, 200):  # in the lists, before the download, in the middle of dpkg
        machines(size)
        done = pymachine("pull", "debian", "--name=pymtest", timeout=240)
        assert done.returncode == 1
        assert_one_line(done.stderr, f"no space left in {MACHINES}")
        assert str(LOG) in done.stderr
        assert_nothing_left()


def test_unknown_suite_is_told_by_apts_own_line(machines, pymachine):
    done = pymachine("pull", "debian", "--name=pymtest", "--suite=nosuchsuite", timeout=120)
    assert done.returncode == 1
    assert_one_line(done.stderr, "nosuchsuite Release' does not have a Release file")
    assert "does not have a Release file" in LOG.read_text()
    assert_nothing_left()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "reading package lists"),
        (signal.SIGINT, "installing the essential"),
        (signal.SIGTERM, "installing the essential"),
        (signal.SIGHUP, "reading package lists"),
    ],
)
def test_signal_ends_the_pull_and_leaves_nothing(machines, number, moment):
    process = start()
    wait_for(process, moment)
    process.send_signal(number)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert_one_line(error, f"Interrupted by {number.name}")
    assert_nothing_left()


def test_killed_mmdebstrap_is_told_and_leaves_nothing(machines):
    process = start()
    wait_for(process, "installing the essential")
    tops = [pid for pid in builders() if b"mmdebstrap" in cmdline(pid)]
    os.kill(min(tops), signal.SIGKILL)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert_one_line(error, "killed by SIGKILL")
    assert_nothing_left()


def test_what_a_killed_pull_left_goes_with_the_next(machines, pymachine):
    process = start()
    wait_for(process, "installing the essential")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while builders() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not builders()
    assert ".#pymtest.new" in os.listdir(MACHINES)
    done = pymachine("pull", "debian", "--name=pymtest", "--suite=nosuchsuite", timeout=120)
    assert done.returncode == 1
    assert_nothing_left()


def test_second_pull_of_the_same_name_is_refused(machines, pymachine):
    process = start()
    wait_for(process, "choosing the essential")
    second = pymachine("pull", "debian", "--name=pymtest")
    assert second.returncode == 1
    assert_one_line(second.stderr, "is being made")
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=10)
    assert_nothing_left()


def test_terminal_shows_one_line_that_renews_itself(machines):
    import pty

    master, slave = pty.openpty()
    process = start(stderr=slave, env=os.environ | {"TERM": "vt100"})
    os.close(slave)
    shown = b""
    while b" of " not in shown:
        shown += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    shown += os.read(master, 4096)
    os.close(master)
    assert b"\rPulling pymtest: " in shown
    assert shown.count(b"\n") <= 2  # the error at the end alone ends lines
    assert_nothing_left()


def test_user_is_refused(pymachine):
    done = pymachine("pull", "debian", "--name=pymtest", user=65534, group=65534, extra_groups=[])
    assert done.returncode == 1
    assert_one_line(done.stderr, "Only root")
