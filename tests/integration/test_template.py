"""Roots made from a template, and the names of ephemeral machines, by the command line."""

from __future__ import annotations

import os
import subprocess

import pytest

from machinectl_py.errors import NotFoundError, PymachineError
from machinectl_py.images.template import fill_root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def template(tmp_path):
    place = tmp_path / "template"
    (place / "etc").mkdir(parents=True)
    (place / "etc/os-release").write_text("ID=test\n")
    (place / "link").symlink_to("/etc")
    os.mkfifo(place / "fifo", 0o640)
    os.chown(place / "fifo", 7, 8)
    place.chmod(0o711)
    return place


@pytest.fixture
def btrfs(tmp_path):
    image, place = tmp_path / "image", tmp_path / "btrfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 28)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    try:
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no btrfs here: {error}")
    yield place
    subprocess.run(["umount", place], check=True)


def assert_same(root):
    assert (root / "etc/os-release").read_text() == "ID=test\n"
    assert os.readlink(root / "link") == "/etc"
    status = (root / "fifo").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (7, 8, 0o640)
    assert root.stat().st_mode & 0o777 == 0o711


def test_a_missing_root_is_copied(template, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", template / "etc"], check=True)
    try:
        assert fill_root(str(template), str(tmp_path / "bare"))
    finally:
        subprocess.run(["umount", template / "etc"], check=True)
    assert list((tmp_path / "bare/etc").iterdir()) == []
    assert fill_root(str(template), str(tmp_path / "root"))
    assert_same(tmp_path / "root")
    assert not fill_root(str(template), str(tmp_path / "root"))
    assert sorted(os.listdir(tmp_path)) == ["bare", "root", "template"]


def test_nothing_is_left_of_a_copy_that_failed(template, tmp_path):
    with pytest.raises(NotFoundError):
        fill_root(str(tmp_path / "none"), str(tmp_path / "root"))
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs", full], check=True)
    try:
        with pytest.raises(PymachineError, match="cp ended with status 1"):
            fill_root(str(template), str(full / "root"))
        assert os.listdir(full) == []
    finally:
        subprocess.run(["umount", full], check=True)


def test_subvolumes_are_snapshotted_and_copies_are_made_subvolumes(template, btrfs):
    assert fill_root(str(template), str(btrfs / "copied"))
    assert_same(btrfs / "copied")
    assert (btrfs / "copied").stat().st_ino == 256
    assert fill_root(str(btrfs / "copied"), str(btrfs / "snapshot"))
    assert_same(btrfs / "snapshot")
    listed = subprocess.check_output(["btrfs", "subvolume", "list", "-q", btrfs], text=True)
    assert any(
        line.endswith("snapshot") and "parent_uuid -" not in line for line in listed.splitlines()
    )
    assert sorted(os.listdir(btrfs)) == ["copied", "snapshot"]


def test_the_command_makes_a_root_and_says_if_it_is_there(tree, tmp_path, machine, pymachine):
    words = ("run", "-D", tmp_path / "made", f"--template={tree}", "-M", machine)
    done = pymachine(*words, "--", "cat", "/etc/os-release")
    assert done.returncode == 0, done
    assert "ID=debian" in done.stdout
    again = pymachine(*words, "--", "true")
    assert "exists already" in again.stderr
    planned = pymachine("plan", "-D", tmp_path / "not", f"--template={tree}", "-M", machine)
    assert planned.returncode == 1
    assert not (tmp_path / "not").exists()


def test_ephemeral_machines_have_names_of_their_own(tree, pymachine, machine):
    link = tree.parent / f"p{os.getpid()}"
    link.mkdir()
    subprocess.run(["mount", "--bind", tree, link], check=True)
    try:
        names = {
            pymachine("run", "-D", link, "-x", "--", "hostname", check=True).stdout.strip()
            for _ in range(2)
        }
        given = pymachine("run", "-D", link, "-x", "-M", machine, "--", "hostname", check=True)
    finally:
        subprocess.run(["umount", link], check=True)
        link.rmdir()
    assert len(names) == 2
    for name in names:
        front, _, number = name.rpartition("-")
        assert front == link.name
        assert int(number, 16) >= 0
        assert len(number) == 16
    assert given.stdout.strip() == machine


def test_as_systemd_nspawn_too(tree, tmp_path, machine, pymachine):
    words = ("nspawn", "-q", "--pipe", "-M", machine, "-D", tmp_path / "made")
    done = pymachine(*words, f"--template={tree}", "hostname")
    assert done.stdout.strip() == machine, done
    assert (tmp_path / "made/etc/os-release").exists()
    refused = pymachine("nspawn", "-q", f"--template={tree}", "true")
    assert "--template= needs" in refused.stderr
    refused = pymachine("nspawn", "-q", "-x", "-D", "/", "true")
    assert "The host's own root cannot be" in refused.stderr
