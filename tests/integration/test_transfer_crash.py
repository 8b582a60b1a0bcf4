"""Transfers that are killed, interrupted or find the disk full, at any moment."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from machinectl_py.kernel.locks import is_locked
from tests.integration.transfers import MACHINES, own_store, snapshot
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
POINTS = 20
SEED = random.randrange(1 << 32)


@pytest.fixture(autouse=True)
def store():
    with own_store() as limit:
        yield limit


@pytest.fixture(scope="module")
def file(tmp_path_factory, pristine_tree):
    """An archive that takes a while."""
    path = tmp_path_factory.mktemp("archive") / "web.tar.zst"
    words = ["tar", "--zstd", "--xattrs", "--xattrs-include=*", "-C", pristine_tree, "-cf", path]
    subprocess.run([*words, "."], check=True)
    return path


def moments(seconds):
    """Return points in time of the length of a run, spread and yet random."""
    chosen = random.Random(SEED)
    return [seconds * (number + chosen.random()) / POINTS for number in range(POINTS)]


def duration(command):
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def killed(command, delay, number=signal.SIGKILL):
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    time.sleep(delay)
    process.send_signal(number)
    error = process.communicate(timeout=30)[1].decode()
    deadline = time.monotonic() + 5
    while is_locked(f"{MACHINES}/.#web.lck") and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not is_locked(f"{MACHINES}/.#web.lck"), "a program outlived the transfer"
    return process.returncode, error


def visible():
    return [name for name in os.listdir(MACHINES) if not name.startswith(".")]


def remove(path):
    subprocess.run(["rm", "-rf", path], check=True)


def test_a_killed_import_leaves_a_whole_store(pymachine, file, pristine_tree):
    command = pymachine.command("import-tar", file)
    whole = duration(command)
    expected = snapshot(MACHINES / "web")
    remove(MACHINES / "web")
    ended = set()
    for delay in moments(whole):
        status, _ = killed(command, delay)
        ended.add(status)
        if visible():  # then it is all there
            assert snapshot(MACHINES / "web") == expected, f"seed {SEED}, after {delay} s"
            remove(MACHINES / "web")
    assert -signal.SIGKILL in ended
    pymachine("import-tar", file, check=True)
    assert os.listdir(MACHINES) == ["web"]
    assert snapshot(MACHINES / "web") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_import_leaves_nothing(pymachine, file, number):
    command = pymachine.command("import-tar", file)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (MACHINES / ".#web.new/usr").exists():  # it is being unpacked
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    error = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 1
    assert f"Interrupted by {number.name}" in error
    assert os.listdir(MACHINES) == []


def wait_until_read(pipe):
    """Wait until nothing that was written to a pipe is left in it; FIONREAD of pipe(7)."""
    wait_for(lambda: not any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))))


def test_an_import_from_a_silent_stream_can_be_interrupted(pymachine):
    for verb in ("import-tar", "import-raw"):
        for first in (bytes(1000), b"\x1f\x8b" + bytes(1000)):
            process = subprocess.Popen(
                pymachine.command(verb, "-", "web"), stdin=subprocess.PIPE, stderr=subprocess.PIPE
            )
            process.stdin.write(first)
            process.stdin.flush()
            wait_until_read(process.stdin)
            time.sleep(0.1)  # by then it waits for more
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == 1
            process.stdin.close()
            process.stderr.close()
            assert os.listdir(MACHINES) == []


def test_a_full_disk_at_any_moment_leaves_nothing(pymachine, file, store, pristine_tree):
    chosen = random.Random(SEED)
    used = int(subprocess.check_output(["du", "-sm", pristine_tree]).split()[0])
    for number in range(POINTS):
        size = 1 + int(used * (number + chosen.random()) / POINTS)
        store(f"{size}m")
        done = pymachine("import-tar", file)
        assert done.returncode == 1, f"seed {SEED}, {size} MB"
        assert "no space left" in done.stderr
        assert os.listdir(MACHINES) == []


def test_a_killed_export_leaves_the_old_file(pymachine, file, tmp_path):
    pymachine("import-tar", file, check=True)
    target = tmp_path / "web.tar.zst"
    command = pymachine.command("export-tar", "web", target)
    whole = duration(command)
    expected = target.read_bytes()
    for delay in moments(whole):
        target.write_bytes(b"old")
        killed(command, delay)
        assert os.listdir(tmp_path) == [target.name], f"seed {SEED}, after {delay} s"
        assert target.read_bytes() in (b"old", expected), f"seed {SEED}, after {delay} s"
        target.unlink()
        killed(command, delay)
        assert os.listdir(tmp_path) in ([], [target.name])
    assert visible() == ["web"]
    assert pymachine("list-transfers", "--no-legend", check=True).stdout == ""
    assert os.listdir("/run/pymachine/transfers") == []


def test_a_full_disk_under_an_export_leaves_the_old_file(pymachine, file, tmp_path):
    pymachine("import-tar", file, check=True)
    chosen = random.Random(SEED)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        for number in range(POINTS):
            size = 1 + int(30 * (number + chosen.random()) / POINTS)
            subprocess.run(["mount", "-o", f"remount,size={size}m", tmp_path], check=True)
            for name in ("web.tar", "web.tar.zst"):
                Path(tmp_path, name).write_bytes(b"old")
                done = pymachine("export-tar", "web", tmp_path / name)
                assert done.returncode == 1, f"seed {SEED}, {size} MB"
                assert "no space left" in done.stderr.lower()
                assert os.listdir(tmp_path) == [name]
                assert Path(tmp_path, name).read_bytes() == b"old"
                Path(tmp_path, name).unlink()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
