"""Trees that move from one range of ids to another."""

from __future__ import annotations

import os
import shutil
import stat
import struct

import pytest

from machinectl_py.kernel import chown_tree
from machinectl_py.kernel.chown_tree import BUSY_BASE, RANGE, move_acl, move_capabilities, move_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CAPABILITY = "security.capability"
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
BASE = 8 * RANGE


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "d/e").mkdir(parents=True)
    (root / "d/file").write_text("x")
    os.chown(root / "d/file", 5, 6)
    (root / "d/set").write_text("x")
    os.chown(root / "d/set", 0, 7)
    os.chmod(root / "d/set", 0o6755)
    os.symlink("/etc/passwd", root / "d/link")
    os.mkfifo(root / "d/e/fifo")
    return root


def ids(path):
    status = os.stat(path, follow_symlinks=False)
    return status.st_uid, status.st_gid


@needs_root
def test_everything_is_moved_and_moved_back(root):
    host = ids("/etc/passwd")
    assert move_tree(str(root), BASE) == 6 + 1
    assert ids(root) == ids(root / "d/link") == ids(root / "d/e/fifo") == (BASE, BASE)
    assert ids(root / "d/file") == (BASE + 5, BASE + 6)
    assert stat.S_IMODE((root / "d/set").stat().st_mode) == 0o6755
    assert ids("/etc/passwd") == host
    assert move_tree(str(root), BASE) == 0
    move_tree(str(root), 0)
    assert ids(root / "d/file") == (5, 6)


@needs_root
def test_capabilities_of_files_are_those_of_the_range(root):
    os.setxattr(root / "d/file", CAPABILITY, NET_RAW)
    move_tree(str(root), BASE)
    held = os.getxattr(root / "d/file", CAPABILITY)
    assert held == struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, BASE)
    move_tree(str(root), 0)
    assert os.getxattr(root / "d/file", CAPABILITY) == NET_RAW


@needs_root
def test_what_was_interrupted_is_taken_up_again(root, monkeypatch):
    give = chown_tree._Mover._give

    def stop(mover, directory, name, status):
        if name == "fifo":
            raise KeyboardInterrupt
        give(mover, directory, name, status)

    monkeypatch.setattr(chown_tree._Mover, "_give", stop)
    with pytest.raises(KeyboardInterrupt):
        move_tree(str(root), BASE)
    assert ids(root) == (BUSY_BASE, BUSY_BASE)
    monkeypatch.setattr(chown_tree._Mover, "_give", give)
    move_tree(str(root), 2 * BASE)
    assert ids(root) == ids(root / "d/e/fifo") == (2 * BASE, 2 * BASE)
    assert ids(root / "d/file") == (2 * BASE + 5, 2 * BASE + 6)


@needs_root
def test_a_file_that_fails_is_named(root):
    shutil.rmtree(root / "d")
    with pytest.raises(FileNotFoundError, match="gone"):
        move_tree(str(root / "gone"), BASE)


def test_only_bases_of_ranges_are_taken(tmp_path):
    for base in (1, RANGE + 1, BUSY_BASE, -RANGE):
        with pytest.raises(ValueError, match="no base"):
            move_tree(str(tmp_path), base)


def test_an_acl_keeps_what_names_no_id():
    value = struct.pack("<I", 2)
    value += struct.pack("<HHI", 1, 6, 0xFFFFFFFF) + struct.pack("<HHI", 2, 4, RANGE + 5)
    value += struct.pack("<HHI", 8, 4, 7) + struct.pack("<HHI", 32, 0, 0xFFFFFFFF)
    moved = move_acl(value, BASE)
    rows = [struct.unpack_from("<HHI", moved, 4 + 8 * number)[2] for number in range(4)]
    assert rows == [0xFFFFFFFF, BASE + 5, BASE + 7, 0xFFFFFFFF]


def test_capabilities_of_an_unknown_form_are_left():
    unknown = struct.pack("<III", 0x09000000, 1, 2)
    assert move_capabilities(unknown, BASE) == unknown
    assert move_capabilities(move_capabilities(NET_RAW, BASE), 0) == NET_RAW
