"""The check for what a test leaves behind sees each kind of thing, and only that."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.hosts.apart import cgroup2_root
from tests.integration import leaks
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def left(reaper, monkeypatch, tmp_path):
    """Return a function that says what came since the test began."""
    monkeypatch.setattr(leaks, "PATIENCE", 0.1)
    before = leaks.snapshot(reaper, str(tmp_path))
    return lambda: leaks.leaked(before, reaper, str(tmp_path))


def test_nothing_is_nothing(left):
    assert left() == []


def test_a_mount_is_seen_even_on_top_of_its_like(left, tmp_path):
    for count in (1, 2):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
        assert left() == [f"mount tmpfs tmpfs/ on {tmp_path} shared"] * count
    for _ in (1, 2):
        subprocess.run(["umount", tmp_path], check=True)


def test_a_changed_propagation_is_seen(left, tmp_path):
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    before = left()
    subprocess.run(["mount", "--make-private", tmp_path], check=True)
    assert left() != before
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="no loop devices here")
def test_a_loop_device_is_seen(left, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    attach = ["losetup", "--find", "--show", image]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    assert left() == [f"loop {device.rpartition('/')[2]} {image}"]
    subprocess.run(["losetup", "--detach", device], check=True)


def test_an_orphan_is_seen(left):
    # The shell is gone when its output ends; its child became the reaper's.
    shown = subprocess.run(
        ["/bin/sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"],
        check=True,
        capture_output=True,
        text=True,
    )
    pid = int(shown.stdout)
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    assert left() == [f"process {pid} sleep 1000"]
    os.kill(pid, 9)


def test_a_cgroup_is_seen_empty_or_with_a_process_of_ours(left):
    cgroup = Path(cgroup2_root(), "pymachine", f"leak-{os.getpid()}")
    made_parent = not cgroup.parent.exists()
    cgroup.mkdir(parents=True)
    assert f"cgroup {cgroup}" in left()
    child = subprocess.Popen(["sleep", "1000"])
    (cgroup / "cgroup.procs").write_text(str(child.pid))
    assert f"cgroup {cgroup}" in left()
    child.kill()
    child.wait()
    cgroup.rmdir()
    if made_parent:
        cgroup.parent.rmdir()


def test_a_link_is_seen(left):
    one, other = f"leak{os.getpid()}", f"peer{os.getpid()}"
    subprocess.run(["ip", "link", "add", one, "type", "veth", "peer", other], check=True)
    assert left() == [f"link {one}", f"link {other}"]
    subprocess.run(["ip", "link", "del", one], check=True)


def test_a_file_and_an_empty_directory_of_state_are_seen(left):
    directory = Path("/run/pymachine/machines/leak")
    directory.mkdir(parents=True)
    assert left() == [f"directory {directory}"]
    (directory / "state.json").touch()
    assert left() == [f"file {directory}/state.json"]
    (directory / "state.json").unlink()
    directory.rmdir()


def test_an_image_half_made_is_seen(left):
    path = Path("/var/lib/machines/.leak.new")
    path.mkdir(parents=True)
    assert left() == [f"file {path}"]
    path.rmdir()
