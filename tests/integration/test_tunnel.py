"""What the host shows a running machine later on, and what a machine shows the host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from machinectl_py.layout import tunnel_dir, unix_export_dir
from tests.hosts.apart import systemd_runs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def booted(pymachine, tree, machine):
    """A machine that runs."""
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    return machine


def inside(pymachine, machine, *command):
    return pymachine("exec", machine, "--", *command)


def test_a_mount_of_the_host_comes_in_and_goes(pymachine, booted):
    point = Path(tunnel_dir(booted), "one")
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "shown", point], check=True)
    try:
        seen = inside(pymachine, booted, "findmnt", "-no", "SOURCE", "/run/host/incoming/one")
        assert seen.stdout == "shown\n"
        # Out of a slave it can be moved; mount(2), MS_MOVE.
        moved = inside(pymachine, booted, "mount", "--move", "/run/host/incoming/one", "/mnt")
        assert moved.returncode == 0, moved.stderr
    finally:
        subprocess.run(["umount", point], check=True)
        point.rmdir()
    gone = inside(pymachine, booted, "findmnt", "/run/host/incoming/one")
    assert gone.returncode == 1
    kept = inside(pymachine, booted, "findmnt", "-no", "SOURCE", "/mnt")
    assert kept.stdout == "shown\n"


def test_no_mount_of_the_machine_goes_out(pymachine, booted):
    before = Path("/proc/self/mountinfo").read_text()
    for target in ("/run/host/incoming", "/run/host/unix-export", "/run", "/mnt"):
        done = inside(pymachine, booted, "mount", "-t", "tmpfs", "tmpfs", target)
        assert done.returncode == 0, done.stderr
    assert Path("/proc/self/mountinfo").read_text() == before


def test_nothing_can_be_written_into_the_tunnel(pymachine, booted):
    denied = inside(pymachine, booted, "touch", "/run/host/incoming/x")
    assert "Read-only file system" in denied.stderr


def test_a_socket_of_the_machine_is_found_by_the_host(pymachine, booted):
    command = ["systemd-socket-activate", "-l", "/run/host/unix-export/ssh", "/bin/cat"]
    process = subprocess.Popen(pymachine.command("exec", booted, "--", *command))
    path = Path(unix_export_dir(booted), "ssh")
    try:
        wait_for(path.exists)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    finally:
        process.terminate()
        process.wait()


def test_no_link_of_the_machine_is_followed_on_the_host(pymachine, booted):
    inside(pymachine, booted, "ln", "-s", "/etc/passwd", "/run/host/unix-export/link")
    with pytest.raises(OSError, match="Too many levels"):
        Path(unix_export_dir(booted), "link").read_text()


def test_both_go_with_the_machine_though_mounts_are_left(pymachine, booted):
    point = Path(tunnel_dir(booted), "left")
    point.mkdir()
    for _ in (1, 2):
        subprocess.run(["mount", "-t", "tmpfs", "left", point], check=True)
    pymachine("poweroff", booted, check=True)
    assert not Path(tunnel_dir(booted)).exists()
    assert not Path(unix_export_dir(booted)).exists()
    assert "left" not in Path("/proc/self/mountinfo").read_text()


def test_both_go_when_the_supervisor_is_killed(pymachine, booted):
    supervisor = int(pymachine("show", booted, "-p", "Supervisor", "--value").stdout)
    os.kill(supervisor, signal.SIGKILL)
    wait_for(
        lambda: not (booted in pymachine("list").stdout or Path(unix_export_dir(booted)).exists())
    )
    assert not Path(tunnel_dir(booted)).exists()


def test_a_reboot_keeps_both(pymachine, booted):
    pymachine("reboot", booted, check=True)
    point = Path(tunnel_dir(booted), "again")
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "again", point], check=True)
    seen = inside(pymachine, booted, "findmnt", "-no", "SOURCE", "/run/host/incoming/again")
    assert seen.stdout == "again\n"
    assert inside(pymachine, booted, "touch", "/run/host/unix-export/x").returncode == 0


@pytest.mark.skipif(not systemd_runs(), reason="needs systemd")
def test_machinectl_bind_shows_a_directory(pymachine, booted, tmp_path):
    (tmp_path / "here").write_text("shown")
    subprocess.run(["machinectl", "bind", "--mkdir", booted, tmp_path, "/srv/shown"], check=True)
    assert inside(pymachine, booted, "cat", "/srv/shown/here").stdout == "shown"
    subprocess.run(
        ["machinectl", "bind", "--mkdir", "--read-only", booted, tmp_path, "/srv/ro"], check=True
    )
    denied = inside(pymachine, booted, "touch", "/srv/ro/x")
    assert "Read-only file system" in denied.stderr
