"""Mount options, detached file systems, and paths made in a root."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.kernel import const
from machinectl_py.kernel.filesystem import make_filesystem
from machinectl_py.kernel.mount_options import split_options
from machinectl_py.kernel.paths import make_in_root, open_in_root


@pytest.mark.parametrize(
    ("options", "flags", "data"),
    [
        ("mode=0755", const.MS_NODEV, "mode=0755"),
        ("ro,dev,size=1m,noexec", const.MS_RDONLY | const.MS_NOEXEC, "size=1m"),
        ("noatime,,defaults", const.MS_NODEV | const.MS_NOATIME, ""),
        ('context="a,ro",x', const.MS_NODEV, 'context="a,ro",x'),
        ("", const.MS_NODEV, ""),
    ],
)
def test_flags_are_split_from_the_file_systems_own(options, flags, data):
    assert split_options(options, const.MS_NODEV) == (flags, data)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_detached_file_system_is_in_no_namespace():
    before = Path("/proc/self/mountinfo").read_text()
    options = (("source", "somewhere"), ("mode", "0700"))
    fd = make_filesystem("tmpfs", options, const.MOUNT_ATTR_RDONLY)
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o700
        assert Path("/proc/self/mountinfo").read_text() == before
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="fsconfig") as caught:
        make_filesystem("tmpfs", (("mode", "nonsense"),))
    assert caught.value.filename == "mode=nonsense"


@pytest.mark.parametrize(
    ("links", "path", "made"),
    [
        ({}, "/a/b", "a/b"),
        ({"a": "b/c"}, "/a/x", "b/c/x"),
        ({"a": "/b"}, "a", "b"),
        ({"a": "../../b", "b": "/c"}, "/a/x", "c/x"),
    ],
)
def test_what_links_lead_to_is_made_in_the_root(tmp_path, links, path, made):
    root = tmp_path / "root"
    root.mkdir()
    for name, target in links.items():
        (root / name).symlink_to(target)
    fd = os.open(root, os.O_PATH)
    os.close(make_in_root(fd, path, directory=True, follow=True))
    os.close(fd)
    assert (root / made).is_dir()
    assert os.listdir(tmp_path) == ["root"]


def test_links_that_lead_to_one_another_are_no_endless_way(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    fd = os.open(tmp_path, os.O_PATH)
    with pytest.raises(OSError, match="symbolic links"):
        make_in_root(fd, "a/c", directory=True, follow=True)
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_way_up_is_found_while_the_host_mounts_elsewhere(tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    script = 'while mount -t tmpfs tmpfs "$1" && umount "$1"; do :; done'
    busy = subprocess.Popen(["unshare", "--mount", "sh", "-c", script, "sh", place])
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            os.close(open_in_root(str(tmp_path), "elsewhere/../../elsewhere", os.O_PATH))
    finally:
        busy.terminate()
        busy.wait()
