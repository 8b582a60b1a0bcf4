"""A path is resolved within its root, whatever links stand there, as the kernel would do it."""

from __future__ import annotations

import os

import pytest

from machinectl_py.kernel.chase import chase
from machinectl_py.kernel.paths import open_in_root

LINKS = {
    "absolute": "/usr/lib/os-release",
    "relative": "usr/lib/os-release",
    "above": "../../../../usr/lib/os-release",
    "etc/up": "../usr/lib/os-release",
    "usr/chain": "/etc/up",
    "through": "/etc/../usr/./lib//os-release",
    "directory": "/usr/lib",
    "loop": "loop",
    "dangling": "/no/such/file",
    "host": "/etc/passwd",
    "below-a-file": "/usr/lib/os-release/x",
    "root": "/",
    "itself": ".",
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib/os-release").write_text("ID=inside\n")
    for name, target in LINKS.items():
        (tmp_path / name).symlink_to(target)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def seen(resolve, root, path):
    """Return which file a path is, or which error."""
    try:
        fd = resolve(root, path)
    except OSError as error:
        return error.errno
    status = os.fstat(fd)
    os.close(fd)
    return status.st_dev, status.st_ino


@pytest.mark.parametrize(
    "path", [*LINKS, "directory/os-release", "root/usr/../etc/up", "..", ".", "", "usr/lib/", "x/y"]
)
def test_it_finds_what_the_kernel_finds(root, path):
    expected = seen(lambda fd, path: open_in_root(fd, path or ".", os.O_PATH), root, path)
    assert seen(chase, root, path) == expected


def test_no_descriptor_is_left_open(root):
    before = os.listdir("/proc/self/fd")
    for path in LINKS:
        seen(chase, root, path)
    assert os.listdir("/proc/self/fd") == before


def test_a_link_of_proc_leads_nowhere_else(tmp_path):
    fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    assert seen(chase, fd, "root/etc/passwd") == 2  # resolved as the text "/", in /proc/self
    os.close(fd)
