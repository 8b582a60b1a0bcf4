"""`import-raw`, `export-raw` and `import-fs`."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.integration.transfers import (
    MACHINES,
    extents,
    make_sparse,
    make_tree,
    own_store,
    snapshot,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
SIZE = 60 << 20


@pytest.fixture(autouse=True)
def store():
    with own_store() as limit:
        yield limit


@pytest.fixture
def disk(tmp_path):
    """A file like a disk image, with holes."""
    path = tmp_path / "disk.img"
    make_sparse(path)
    return path


def same(one, other):
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def allocated(path):
    return path.stat().st_blocks * 512


def assert_refused(done, text):
    assert done.returncode == 1, done.stdout
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert len(messages) == 1, done.stderr
    assert text in messages[0]
    assert os.listdir(MACHINES) == []


def test_a_file_keeps_its_holes_both_ways(pymachine, disk, tmp_path):
    done = pymachine("import-raw", disk)
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/disk.raw\n"), done.stderr
    assert same(MACHINES / "disk.raw", disk)
    assert extents(MACHINES / "disk.raw") == extents(disk)
    assert (MACHINES / "disk.raw").stat().st_mode & 0o777 == 0o600
    assert pymachine("export-raw", "disk", tmp_path / "out.raw").returncode == 0
    assert same(tmp_path / "out.raw", disk)
    assert extents(tmp_path / "out.raw") == extents(disk)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_images_go_both_ways_and_get_holes(pymachine, disk, tmp_path, suffix):
    pymachine("import-raw", disk, check=True)
    file = tmp_path / f"again.raw{suffix}"
    assert pymachine("export-raw", "disk", file).returncode == 0
    done = pymachine("import-raw", file)
    assert done.returncode == 0, done.stderr
    assert same(MACHINES / "again.raw", disk)
    assert allocated(MACHINES / "again.raw") < 1 << 20


def test_streams_go_both_ways(pymachine, disk, tmp_path):
    with subprocess.Popen(["cat", disk], stdout=subprocess.PIPE) as cat:
        assert pymachine("import-raw", "-", "disk", stdin=cat.stdout).returncode == 0
    assert same(MACHINES / "disk.raw", disk)
    assert allocated(MACHINES / "disk.raw") < 1 << 20
    command = pymachine.command("export-raw", "disk")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as export:
        assert export.stdout.read() == disk.read_bytes()
    assert export.returncode == 0


def test_a_stream_is_limited(pymachine, disk):
    with subprocess.Popen(["cat", disk], stdout=subprocess.PIPE) as cat:
        done = pymachine("import-raw", "-", "disk", "--limit=10M", stdin=cat.stdout)
    assert_refused(done, "unpacks to more than 10.5 MB")
    assert_refused(pymachine("import-raw", disk, "--limit=10M"), "unpacks to more than")


def test_a_full_disk_leaves_nothing(pymachine, tmp_path, store):
    file = tmp_path / "big.raw"
    file.write_bytes(os.urandom(30 << 20))
    store("20m")
    assert_refused(pymachine("import-raw", file), "no space left")
    with subprocess.Popen(["cat", file], stdout=subprocess.PIPE) as cat:
        assert_refused(pymachine("import-raw", "-", "x", stdin=cat.stdout), "no space left")


def test_other_formats_are_refused(pymachine, tmp_path):
    file = tmp_path / "x.vmdk"
    file.write_bytes(b"KDMV" + bytes(1000))
    assert_refused(pymachine("import-raw", file, "x"), "of format vmdk cannot be imported")


def test_qcow2_becomes_raw(pymachine, disk, tmp_path):
    file = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-c", disk, file], check=True)
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    assert pymachine("import-raw", file).returncode == 0
    assert same(MACHINES / "disk.raw", disk)
    subprocess.run(["xz", "-k", file], check=True)
    assert pymachine("import-raw", f"{file}.xz", "xzdisk").returncode == 0
    assert same(MACHINES / "xzdisk.raw", disk)
    assert allocated(MACHINES / "xzdisk.raw") < 1 << 20


def test_qcow2_names_the_missing_tool(pymachine, tmp_path):
    file = tmp_path / "x.qcow2"
    file.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1000))
    hide = f'mount --bind /dev/null {shutil.which("qemu-img")} && exec "$@"'
    without = ("unshare", "--mount", "/bin/sh", "-c", hide, "sh")
    command = [*without, *pymachine.command("import-raw", file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert_refused(done, "qemu-img is not installed")
    assert "apt-get install qemu-utils" in done.stderr


def test_a_qcow2_image_reads_no_other_file(pymachine, tmp_path):
    header = b"QFI\xfb" + (3).to_bytes(4, "big") + (104).to_bytes(8, "big")
    header += (11).to_bytes(4, "big") + (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big")
    file = tmp_path / "x.qcow2"
    file.write_bytes(header.ljust(104, b"\0") + b"/etc/shadow" + bytes(1 << 16))
    assert_refused(pymachine("import-raw", file), "needs another file besides itself")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_file_is_refused(pymachine, disk, tmp_path, suffix):
    pymachine("import-raw", disk, check=True)
    file = tmp_path / f"x.raw{suffix}"
    pymachine("export-raw", "disk", file, check=True)
    (MACHINES / "disk.raw").unlink()
    os.truncate(file, file.stat().st_size // 2)
    assert_refused(pymachine("import-raw", file), "Cannot unpack")


def test_a_directory_is_copied_whole(pymachine, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree)
    (tree / "mnt").mkdir()
    before = snapshot(tree)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "mnt"], check=True)
    try:
        (tree / "mnt/not").touch()
        done = pymachine("import-fs", tree)
    finally:
        subprocess.run(["umount", tree / "mnt"], check=True)
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/tree\n"), done.stderr
    assert snapshot(MACHINES / "tree") == before


def test_a_directory_that_is_none_is_refused(pymachine, tmp_path):
    assert_refused(pymachine("import-fs", tmp_path / "none"), "no directory")


def test_the_two_kinds_are_told_apart(pymachine, disk, tmp_path):
    pymachine("import-raw", disk, check=True)
    done = pymachine("export-tar", "disk", tmp_path / "x.tar")
    assert "'pymachine export-raw' writes those" in done.stderr
    (MACHINES / "tree").mkdir()
    done = pymachine("export-raw", "tree", tmp_path / "x.raw")
    assert "'pymachine export-tar' archives trees" in done.stderr
    assert not (tmp_path / "x.tar").exists()
    assert not (tmp_path / "x.raw").exists()
