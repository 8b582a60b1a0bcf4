"""The attributes of a root directory, from layer to layer."""

from __future__ import annotations

import os

from machinectl_py.images.root_attributes import (
    RootAttributes,
    give_attributes,
    root_attributes,
)


def test_they_are_given_on_as_they_are(tmp_path):
    for name in ("below", "upper"):
        (tmp_path / name).mkdir(mode=0o700)
    below, upper = str(tmp_path / "below"), str(tmp_path / "upper")
    os.chmod(below, 0o1751)
    os.setxattr(below, "user.test", b"\0value")
    found = root_attributes(below)
    assert (found.mode, dict(found.extended)["user.test"]) == (0o1751, b"\0value")
    assert root_attributes(upper) != found
    give_attributes(upper, found)
    assert root_attributes(upper) == found


def test_marks_of_overlayfs_are_none_of_them(tmp_path):
    before = root_attributes(str(tmp_path))
    os.setxattr(tmp_path, "user.overlay.impure", b"y")
    assert root_attributes(str(tmp_path)) == before


def test_in_a_disk_image_they_are_not_looked_up(tmp_path):
    (tmp_path / "disk.raw").touch(mode=0o600)
    assert root_attributes(str(tmp_path / "disk.raw")) == RootAttributes()
