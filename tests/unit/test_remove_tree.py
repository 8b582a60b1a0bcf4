"""What a machine wrote goes, whatever it wrote; and nothing else does."""

from __future__ import annotations

import os
import subprocess

import pytest

from machinectl_py.kernel.remove_tree import remove_tree


def test_a_tree_goes_and_what_its_links_lead_to_stays(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/x").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/to").symlink_to(tmp_path / "kept")
    os.mkfifo(tree / "a/b/fifo")
    remove_tree(str(tree))
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["x"]
    remove_tree(str(tree))  # gone already


def test_a_link_in_the_place_of_the_tree_goes_alone(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "tree").symlink_to("kept")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["kept"]


def test_a_tree_deeper_than_the_stack_and_than_paths(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    current = os.open(tree, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("directory", dir_fd=current)
        following = os.open("directory", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = following
    os.close(current)
    remove_tree(str(tree))
    assert not tree.exists()


def test_a_name_in_a_directory_that_is_open(tmp_path):
    (tmp_path / "x/y").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    remove_tree("x", fd)
    os.close(fd)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_immutable_files_and_directories(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/x").touch()
    try:
        subprocess.run(["chattr", "+i", tree / "a/x", tree / "a"], check=True, capture_output=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("no immutable files here")
    remove_tree(str(tree))
    assert not tree.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_mount_point_is_not_entered(tmp_path):
    tree = tmp_path / "tree"
    (tree / "mounted").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "mounted"], check=True)
    try:
        (tree / "mounted/x").touch()
        with pytest.raises(OSError, match="mount point"):
            remove_tree(str(tree))
        assert (tree / "mounted/x").exists()
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_mount_of_the_same_file_system_is_not_entered(tmp_path):
    tree, kept = tmp_path / "tree", tmp_path / "kept"
    (tree / "mounted").mkdir(parents=True)
    kept.mkdir()
    (kept / "x").touch()
    subprocess.run(["mount", "--bind", kept, tree / "mounted"], check=True)
    try:
        with pytest.raises(OSError, match="mount point"):
            remove_tree(str(tree))
        assert (kept / "x").exists()
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)
