"""`import-tar` and `export-tar`: what they keep, and what they do not let happen."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from machinectl_py.kernel.chown_tree import move_tree
from machinectl_py.kernel.statfs import is_subvolume
from tests.integration import pools
from tests.integration.transfers import MACHINES, can_make_devices, make_tree, own_store, snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
SUFFIXES = {"": "", ".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


@pytest.fixture(autouse=True)
def store():
    with own_store() as limit:
        yield limit


@pytest.fixture
def sample(tmp_path):
    """An image of everything, `pymtest`, made without us."""
    root = tmp_path / "sample"
    root.mkdir()
    make_tree(root)
    subprocess.run(["cp", "--archive", root, MACHINES / "pymtest"], check=True)
    assert snapshot(MACHINES / "pymtest") == snapshot(root)
    return root


def archive(path, *members):
    """Write an archive of members: (name, {field: value}) or (name, {}, content)."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields, *content in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            for field, value in fields.items():
                setattr(member, field, value)
            data = content[0] if content else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0]
    assert "Traceback" not in done.stderr
    assert not [name for name in os.listdir(MACHINES) if name != "victim"]


DIRECTORY = {"type": tarfile.DIRTYPE}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_round_trip_keeps_everything(pymachine, sample, tmp_path, suffix):
    file = tmp_path / f"web.tar{suffix}"
    done = pymachine("export-tar", "pymtest", file)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sorted(os.listdir(tmp_path)) == ["sample", file.name]
    done = pymachine("import-tar", file)
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/web\n"), done.stderr
    assert "warning" not in done.stderr
    assert snapshot(MACHINES / "web") == snapshot(sample)
    assert sorted(os.listdir(MACHINES)) == ["pymtest", "web"]


@pytest.mark.parametrize("kind", pools.KINDS)
def test_every_file_system_keeps_everything(pymachine, sample, tmp_path, kind):
    file = tmp_path / "web.tar"
    pymachine("export-tar", "pymtest", file, check=True)
    try:
        with pools.pool(kind, 600):
            done = pymachine("import-tar", file)
            assert done.returncode == 0, done.stderr
            assert coarse_holes(MACHINES / "web") == coarse_holes(sample)
            assert is_subvolume(str(MACHINES / "web")) == (kind == "btrfs")
            done = pymachine("import-tar", file, "again", "--limit=10K")
            assert done.returncode == 1
            assert os.listdir(MACHINES) == ["web"]
            pymachine("export-tar", "web", tmp_path / "back.tar", check=True)
            pymachine("import-fs", MACHINES / "web", "copy", check=True)
            assert is_subvolume(str(MACHINES / "copy")) == (kind == "btrfs")
            assert coarse_holes(MACHINES / "copy") == coarse_holes(sample)
    except pools.NoLoops as error:
        pytest.skip(str(error))
    if kind == "tmpfs":
        assert (tmp_path / "back.tar").read_bytes() == file.read_bytes()


def coarse_holes(root):
    """Return a snapshot without the places of holes, which are each file system's own."""
    found, links = snapshot(root)
    for path, (*known, content) in found.items():
        found[path] = (*known, content[0] if isinstance(content, tuple) and content else content)
    return found, links


def test_streams_go_both_ways(pymachine, sample, tmp_path):
    export = subprocess.Popen(
        pymachine.command("export-tar", "pymtest", "-", "--format=zstd"), stdout=subprocess.PIPE
    )
    done = pymachine("import-tar", "-", "web", stdin=export.stdout)
    export.stdout.close()
    assert export.wait() == 0
    assert done.returncode == 0, done.stderr
    assert snapshot(MACHINES / "web") == snapshot(sample)


def test_the_same_tree_gives_the_same_file(pymachine, sample, tmp_path):
    files = [tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"]
    pymachine("export-tar", "pymtest", files[0], check=True)
    pymachine("import-tar", files[0], "pymtest2", check=True)
    pymachine("export-tar", "pymtest2", files[1], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_format_is_as_asked_and_seen_by_content(pymachine, sample, tmp_path):
    file = tmp_path / "lies.tar.gz"
    pymachine("export-tar", "pymtest", file, "--format=xz", check=True)
    assert file.read_bytes().startswith(b"\xfd7zXZ")
    assert pymachine("import-tar", file).returncode == 0
    assert snapshot(MACHINES / "lies") == snapshot(sample)


def test_ids_of_a_user_namespace_are_shifted_back(pymachine, sample, tmp_path):
    plain, shifted = tmp_path / "plain.tar", tmp_path / "shifted.tar"
    pymachine("export-tar", "pymtest", plain, check=True)
    move_tree(str(MACHINES / "pymtest"), 5 << 16)
    assert (MACHINES / "pymtest/etc/shadow").stat().st_gid == (5 << 16) + 42
    pymachine("export-tar", "pymtest", shifted, check=True)
    assert plain.read_bytes() == shifted.read_bytes()


def test_ids_are_shifted_back_where_mounts_cannot_be_mapped(pymachine, sample, tmp_path):
    plain, shifted = tmp_path / "plain.tar", tmp_path / "shifted.tar"
    tree, upper, work = (MACHINES / name for name in ("pymtest", "upper", "work"))
    # What is lost: attributes that no user namespace sees, and by the overlay links and holes.
    for name in ("etc/mtab2", "usr/bin/ping6", "var/sparse"):
        (tree / name).unlink()
    for name in ("etc/os-release", "usr", "lib"):
        for attribute in ("trusted.blob", "trusted.empty", "trusted.link"):
            if attribute in os.listxattr(tree / name, follow_symlinks=False):
                os.removexattr(tree / name, attribute, follow_symlinks=False)
    pymachine("export-tar", "pymtest", plain, check=True)
    upper.mkdir()
    work.mkdir()
    when = tree.stat().st_mtime_ns
    options = f"lowerdir={tree},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", tree], check=True)
    try:
        move_tree(str(tree), 5 << 16)
        os.utime(tree, ns=(when, when))
        done = pymachine("export-tar", "pymtest", shifted)
    finally:
        subprocess.run(["umount", tree], check=True)
    assert done.returncode == 0, done.stderr
    assert plain.read_bytes() == shifted.read_bytes()


def test_an_archive_of_a_directory_is_moved_up(pymachine, tmp_path):
    file = archive(
        tmp_path / "x.tar",
        ("top", {**DIRECTORY, "mode": 0o711, "uid": 3}),
        ("top/top", {}, b"same name"),
        ("top/etc", DIRECTORY),
        ("top/etc/os-release", {}, b"ID=x\n"),
    )
    assert pymachine("import-tar", file).returncode == 0
    assert sorted(os.listdir(MACHINES / "x")) == ["etc", "top"]
    assert (MACHINES / "x").stat().st_mode & 0o7777 == 0o711
    assert (MACHINES / "x").stat().st_uid == 3


# Hostile archives: what each would do, had tar(1) the host's root.


@pytest.fixture
def victim():
    """A file of the host in each place that an archive may aim at."""
    places = [Path("/etc/pymtest-victim"), MACHINES / "victim"]
    for place in places:
        place.write_text("whole")
    yield places
    state = [place.exists() and place.read_text() for place in places]
    modes = [place.stat().st_mode & 0o777 for place in places if place.exists()]
    for place in places:
        place.unlink(missing_ok=True)
    assert state == ["whole", "whole"]
    assert modes == [0o644, 0o644]


LINK = {"type": tarfile.SYMTYPE}
HARD = {"type": tarfile.LNKTYPE}
HOSTILE = {
    "absolute": [("/etc/pymtest-victim", {}, b"broken")],
    "dots": [("../victim", {}, b"broken")],
    "deep dots": [("a/../../../../../etc/pymtest-victim", {}, b"broken")],
    "link to a directory": [
        ("out", {**LINK, "linkname": "/etc"}),
        ("out/pymtest-victim", {}, b"broken"),
    ],
    "relative link to a directory": [
        ("out", {**LINK, "linkname": "../../../../etc"}),
        ("out/pymtest-victim", {}, b"broken"),
    ],
    "link to a link": [
        ("a", {**LINK, "linkname": ".."}),
        ("b", {**LINK, "linkname": "a/victim"}),
        ("b", {}, b"broken"),
    ],
    "link that becomes a directory": [
        ("out", {**LINK, "linkname": "/etc"}),
        ("out", {**DIRECTORY, "mode": 0o777}),
        ("out/pymtest-victim", {}, b"broken"),
    ],
    "hard link": [
        ("x", {**HARD, "linkname": "/etc/pymtest-victim"}),
        ("x", {}, b"broken"),
    ],
    "hard link by dots": [("x", {**HARD, "linkname": "../victim", "mode": 0o777})],
    "hard link through a link": [
        ("out", {**LINK, "linkname": "/etc"}),
        ("x", {**HARD, "linkname": "out/pymtest-victim", "mode": 0o777}),
        ("x", {}, b"broken"),
    ],
    "through its own /proc": [
        ("p", {**LINK, "linkname": "/proc/self/cwd/.."}),
        ("p/victim", {}, b"broken"),
    ],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_reaches_nothing_outside(pymachine, tmp_path, victim, kind):
    file = archive(tmp_path / "evil.tar", ("etc", DIRECTORY), *HOSTILE[kind])
    done = pymachine("import-tar", file)
    left = set(os.listdir(MACHINES))
    if done.returncode == 0:  # confined: what it would write is in its own tree
        assert left == {"evil", "victim"}
        for directory, _, names in os.walk(MACHINES / "evil"):
            for name in names:
                path = Path(directory, name)
                assert path.is_symlink() or path.read_bytes() != b"whole"
    else:
        assert done.returncode == 1
        assert left == {"victim"}


def test_a_link_never_leads_to_a_file_of_the_host(pymachine, tmp_path, victim):
    file = archive(
        tmp_path / "evil.tar",
        ("usr", {**LINK, "linkname": "/usr"}),
        ("x", {**HARD, "linkname": "usr/bin/true"}),
    )
    assert_refused(pymachine("import-tar", file), "tar: usr/bin/true: Cannot stat: Not a directory")


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices")
def test_a_device_over_a_file_is_only_a_device(pymachine, tmp_path, victim):
    if not can_make_devices(MACHINES):
        pytest.skip("no devices can be made here")
    device = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}
    file = archive(
        tmp_path / "evil.tar", ("x", {}, b"file"), ("x", device), ("x/y", {}, b"through it")
    )
    assert_refused(pymachine("import-tar", file), "Not a directory")


def test_a_bomb_stops_at_the_limit_and_at_the_reserve(pymachine, tmp_path, store):
    bomb = tmp_path / "bomb.tar.zst"
    with tarfile.open(tmp_path / "bomb.tar", "w") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = 400 << 20
        with open("/dev/zero", "rb") as zeros:
            tar.addfile(member, zeros)
    subprocess.run(["zstd", "-q", "--rm", tmp_path / "bomb.tar", "-o", bomb], check=True)
    assert bomb.stat().st_size < 100_000
    assert_refused(pymachine("import-tar", bomb, "--limit=50M"), "unpacks to more than 52.4 MB")
    with bomb.open("rb") as stream:
        done = pymachine("import-tar", "-", "x", "--limit=50M", stdin=stream)
    assert_refused(done, "unpacks to more than")
    store("200m")
    assert_refused(pymachine("import-tar", bomb), "no space left")


def test_a_bomb_of_small_files_leaves_room_for_others(pymachine, tmp_path, store):
    file = archive(tmp_path / "many.tar", *((f"{number}", {}) for number in range(20000)))
    store("100m,nr_inodes=10k")
    assert_refused(pymachine("import-tar", file), "no space left")


def test_a_large_file_is_refused_before_it_is_unpacked(pymachine, tmp_path):
    file = archive(tmp_path / "x.tar", ("x", {}, bytes(3 << 20)))
    assert_refused(pymachine("import-tar", file, "--limit=1M"), "unpacks to more than 1.0 MB")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_archive_is_refused(pymachine, tmp_path, suffix):
    whole = archive(tmp_path / "x.tar", ("etc", DIRECTORY), ("x", {}, os.urandom(200_000)))
    packer = {"": "cat"}.get(suffix, SUFFIXES[suffix])
    data = subprocess.run([packer], input=whole.read_bytes(), stdout=subprocess.PIPE, check=True)
    short = tmp_path / f"short.tar{suffix}"
    short.write_bytes(data.stdout[: len(data.stdout) // 2])
    done = pymachine("import-tar", short)
    assert_refused(done, "Cannot unpack")
    assert "(null)" not in done.stderr
    if suffix:
        middle = len(data.stdout) // 2
        changed = tmp_path / f"changed.tar{suffix}"
        changed.write_bytes(data.stdout[:middle] + os.urandom(64) + data.stdout[middle + 64 :])
        assert_refused(pymachine("import-tar", changed), "Cannot unpack")


def test_an_archive_that_ends_between_its_members_is_warned_of(pymachine, tmp_path):
    whole = archive(tmp_path / "whole.tar", ("etc", DIRECTORY), ("etc/os-release", {}, b"ID=x\n"))
    assert "warning" not in pymachine("import-tar", whole).stderr
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:512])
    done = pymachine("import-tar", tmp_path / "cut.tar")
    assert "warning: the archive has no end mark" in done.stderr, done.stderr


def test_what_tar_does_to_names_is_not_why_it_failed(pymachine, tmp_path):
    file = archive(tmp_path / "x.tar", ("/y", {}, b"y"), ("x", {**HARD, "linkname": "nope"}))
    assert_refused(pymachine("import-tar", file), "Cannot hard link to 'nope'")


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", "is empty"), (b"hello", "tar"), (bytes(10240), "archive of nothing")],
)
def test_what_is_no_archive_is_refused(pymachine, tmp_path, data, text):
    file = tmp_path / "x.tar"
    file.write_bytes(data)
    assert_refused(pymachine("import-tar", file), text)


def test_what_cannot_be_is_told(pymachine, tmp_path, sample):
    file = tmp_path / "x.tar"
    for arguments, status, text in (
        (("import-tar", tmp_path / "none.tar"), 1, "No such file"),
        (("import-tar", tmp_path, "x"), 1, "is a directory"),
        (("import-tar", "-"), 2, "needs a NAME"),
        (("import-tar", tmp_path / "..x.tar"), 1, "no valid machine name"),
        (("import-tar", file, "../x"), 1, "no valid machine name"),
        (("export-tar", "nosuch", file), 1, "no image 'nosuch'"),
        (("export-tar", "pymtest", "/nosuch/x.tar"), 1, "No such file or directory"),
        (("import-tar", "/etc/passwd", "pymtest"), 1, "exists already"),
        (("import-tar", file, "x", "--limit=many"), 1, "is no size"),
    ):
        done = pymachine(*arguments)
        assert done.returncode == status, (arguments, done.stderr)
        assert text in done.stderr
    assert os.listdir(MACHINES) == ["pymtest"]


def test_a_running_root_is_not_exported(pymachine, sample, tmp_path):
    from machinectl_py.kernel.locks import drop_lock, take_lock

    status = (MACHINES / "pymtest").stat()
    path = f"/run/systemd/nspawn/locks/inode-{status.st_dev}:{status.st_ino}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lock = take_lock(path)
    done = pymachine("export-tar", "pymtest", tmp_path / "x.tar")
    drop_lock(path, lock)
    assert done.returncode == 1
    assert "A machine runs on" in done.stderr
    assert not (tmp_path / "x.tar").exists()


def test_an_export_to_a_reader_that_leaves_fails(pymachine, sample):
    script = '"$@" | head -c 100 >/dev/null; exit ${PIPESTATUS[0]}'
    command = pymachine.command("export-tar", "pymtest", "-")
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
