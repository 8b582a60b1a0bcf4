"""The newest of a versioned directory; systemd.v(7)."""

from __future__ import annotations

import os

import pytest

from machinectl_py.errors import NotFoundError
from machinectl_py.images import pick as pick_module
from machinectl_py.images.pick import base_name, pick


@pytest.fixture
def versions(tmp_path, monkeypatch):
    """Make files in foo.v; return what is picked of them."""
    monkeypatch.setattr(
        pick_module.os, "uname", lambda: os.uname_result(("Linux", "", "", "", "x86_64"))
    )

    def make(*names, suffix="", path="foo.v"):
        directory = tmp_path / "foo.v"
        directory.mkdir(exist_ok=True)
        for name in names:
            (directory / name).touch()
        return os.path.basename(pick(f"{tmp_path}/{path}", suffix, os.path.exists))

    return make


def test_the_newest_version_is_taken(versions):
    assert versions("foo_1.2", "foo_1.10", "foo_1.9", "bar_7", "foo", "foo_") == "foo_1.10"


def test_a_suffix_is_looked_for(versions):
    names = ("foo_1.raw", "foo_2.raw", "foo_3.txt", "foo_4")
    assert versions(*names, suffix=".raw") == "foo_2.raw"
    assert versions(path="foo.v/foo___.txt") == "foo_3.txt"


def test_only_architectures_that_run_here_count_and_the_native_one_first(versions):
    assert versions("foo_1_x86", "foo_1_x86-64", "foo_1", "foo_2_arm64") == "foo_1_x86-64"
    assert versions("foo_2_x86") == "foo_2_x86"


def test_what_has_no_tries_left_comes_last(versions):
    assert versions("foo_3+0-3", "foo_2+1-2", "foo_1") == "foo_2+1-2"
    assert versions("foo_2+3") == "foo_2+3"
    assert versions("foo_2") == "foo_2"


def test_a_directory_without_a_version_is_told(versions):
    with pytest.raises(NotFoundError, match=r"no version of foo in .*/foo\.v"):
        versions("bar_1")


def test_any_other_path_is_as_it_is(tmp_path):
    for path in (f"{tmp_path}/foo", f"{tmp_path}/foo.v", f"{tmp_path}/a___b"):
        assert pick(path, "", os.path.exists) == path


def test_a_versioned_path_names_what_it_is_of():
    assert base_name("/a/foo.v/") == "foo"
    assert base_name("/a/foo.raw.v") == "foo.raw"
    assert base_name("/a/foo.v/bar___.raw") == "bar"
    assert base_name("/a/foo") == "foo"
