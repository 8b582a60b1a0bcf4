"""Care of images and machines: names, marks, limits, what is hidden, what is left over."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from machinectl_py.kernel import btrfs
from machinectl_py.kernel.locks import drop_lock, take_lock
from tests.integration import pools
from tests.integration.pools import DB, DEBIAN, SHOP, WEB
from tests.integration.test_boot import one_error
from tests.integration.test_machines_of_images import STORE, do, kind, listed, pool, sh
from tests.integration.transfers import own_cache

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
__all__ = ("do", "kind", "pool", "sh")  # fixtures

IMAGES = Path("/var/lib/machines")


def test_a_machine_is_renamed_with_all_that_is_its_own(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    do("snapshot", WEB, "one")
    Path("/etc/systemd/nspawn").mkdir(exist_ok=True, parents=True)
    settings = Path(f"/etc/systemd/nspawn/{WEB}.nspawn")
    settings.write_text("[Exec]\nEnvironment=MARK=here\n")
    try:
        do("rename", WEB, SHOP)
        assert not settings.exists()
        assert sh(SHOP, "cat /own; echo $MARK") == "1\nhere\n"
        assert f"{WEB}@one" not in do("snapshots")
        do("rollback", SHOP, "one")
        do("clone", SHOP, DB)
        assert sh(DB, "echo $MARK") == "here\n"
        assert "exists already" in one_error(pymachine("rename", SHOP, DB))
        assert f"no image '{WEB}'" in one_error(pymachine("rename", WEB, "x"))
    finally:
        do("remove", SHOP)
        do("remove", DB)
    assert not list(Path("/etc/systemd/nspawn").glob("*.nspawn"))


def test_an_image_is_renamed_unless_it_is_in_use(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    assert WEB in one_error(pymachine("rename", DEBIAN, "other"))
    do("remove", WEB)
    do("read-only", DEBIAN)
    do("rename", DEBIAN, "other")
    assert listed(do)["other"]["ro"] is True
    do("rename", "other", DEBIAN)
    do("read-only", DEBIAN, "no")
    assert listed(do)[DEBIAN]["ro"] is False


def test_of_an_image_that_is_a_link_the_link_is_renamed_and_removed(
    do, sh, kind, pymachine, tmp_path
):
    (tmp_path / "kept").mkdir()
    (IMAGES / "link").symlink_to(tmp_path / "kept")
    try:
        do("rename", "link", "other")
        assert (IMAGES / "other").readlink() == tmp_path / "kept"
        assert "link" not in listed(do)
        do("create", "other", WEB)
        assert WEB in one_error(pymachine("remove", "other"))
        do("remove", WEB)
        do("remove", "other")
        assert not (IMAGES / "other").is_symlink()
        assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    finally:
        for name in ("link", "other"):
            (IMAGES / name).unlink(missing_ok=True)


def test_what_is_mounted_in_an_image_is_not_touched(do, kind, pymachine, tmp_path):
    (tmp_path / "precious").mkdir()
    (IMAGES / "plain/mnt").mkdir(parents=True)
    subprocess.run(["mount", "--bind", tmp_path, IMAGES / "plain/mnt"], check=True)
    try:
        assert f"mounted on {IMAGES}/plain/mnt" in one_error(pymachine("remove", "plain"))
        assert (IMAGES / "plain/mnt/precious").is_dir()
    finally:
        subprocess.run(["umount", IMAGES / "plain/mnt"], check=True)
    subprocess.run(["mount", "--bind", IMAGES / "plain", IMAGES / "plain"], check=True)
    try:
        for words in (("remove", "plain"), ("rename", "plain", "other")):
            assert f"mounted on {IMAGES}/plain" in one_error(pymachine(*words))
    finally:
        subprocess.run(["umount", IMAGES / "plain"], check=True)
    do("remove", "plain")
    assert not list(IMAGES.glob(".#pymachine.*"))


def test_a_directory_with_a_subvolume_in_it_is_removed(do, kind):
    if kind != "btrfs":
        pytest.skip("subvolumes are of btrfs")
    (IMAGES / "plain/usr").mkdir(parents=True)
    btrfs.create(str(IMAGES / "plain/usr/sub"))
    (IMAGES / "plain/usr/sub/directory").mkdir()
    btrfs.set_read_only(str(IMAGES / "plain/usr/sub"), on=True)
    do("remove", "plain")
    assert "plain" not in listed(do)
    assert not list(IMAGES.glob(".#pymachine.*"))


def test_a_read_only_image_stays_so_and_a_machine_is_started_so(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    do("read-only", WEB)
    assert sh(WEB, "touch /own 2>/dev/null || echo read-only") == "read-only\n"
    do("read-only", WEB, "no")
    assert sh(WEB, "touch /own && echo made") == "made\n"
    assert "stand on it" in one_error(pymachine("read-only", DEBIAN, "no"))
    do("read-only", DEBIAN)
    do("remove", WEB)
    assert listed(do)[DEBIAN]["ro"] is True
    assert sh(DEBIAN, "touch /own && echo made") == "made\n"  # of a machine of that name
    assert not (IMAGES / f"{DEBIAN}/own").exists()
    do("remove", DEBIAN)
    do("read-only", DEBIAN, "no")
    for source, name in ((DEBIAN, WEB), (WEB, DB)):
        do("clone", source, name, "--read-only")
        assert sh(name, "touch /own 2>/dev/null || echo read-only") == "read-only\n"


def test_properties_have_machinectls_names(do, sh, kind):
    do("create", DEBIAN, WEB)
    do("snapshot", WEB, "one")
    shown = json.loads(do("show-image", WEB, DEBIAN, "--json=short"))
    assert shown[0]["Name"] == WEB
    assert shown[0]["Snapshots"] == ["one"]
    assert shown[0]["Driver"] == listed(do)[f"{WEB}*"]["driver"]
    assert shown[0]["OSPrettyName"].startswith("Debian GNU/Linux")
    assert shown[1]["Users"] == [WEB]
    assert shown[1]["Usage"] > 50 << 20
    assert do("show-image", DEBIAN, "-p", "Path", "--value") == f"/var/lib/machines/{DEBIAN}\n"
    status = do("image-status", DEBIAN, WEB)
    assert "RO: read-only" in status
    assert "OS: Debian GNU/Linux" in status
    assert "PoolPath=/var/lib/machines" in do("show-image")


def test_of_no_name_the_place_is_told(do, kind):
    do("create", DEBIAN, WEB)
    fields = dict(line.strip().split(": ", 1) for line in do("image-status").splitlines())
    assert fields["Path"] == "/var/lib/machines"
    assert fields["Images"] == DEBIAN
    assert fields["Machines"] == WEB
    assert {"Usage", "Limit"} <= fields.keys()


@pytest.fixture
def cache():
    """An empty one, which `clean` cleans too."""
    with own_cache():
        yield


@pytest.mark.usefixtures("cache")
def test_hidden_images_are_cleaned_and_others_only_if_asked(do, kind, pymachine, tmp_path):
    (IMAGES / ".hidden/deep").mkdir(parents=True)
    (IMAGES / ".hidden/deep/file").write_bytes(bytes(1 << 20))
    (IMAGES / ".old.raw").touch()
    (IMAGES / ".#left.new").mkdir()
    assert {".hidden", ".old"} <= {row["name"] for row in json.loads(do("images", "-aj"))}
    cleaned = pymachine("clean")
    assert (cleaned.returncode, sorted(cleaned.stdout.split())) == (
        0,
        [".#left.new", ".hidden", ".old"],
    )
    assert "freed: 1.0M" in cleaned.stderr
    assert list(listed(do)) == [DEBIAN]
    do("create", DEBIAN, WEB)
    do("snapshot", WEB, "one")
    pools.put_image(tmp_path, "other", kind)
    do("boot", DEBIAN, "-M", DB)
    cleaned = pymachine("clean", "--all")
    assert cleaned.returncode == 1
    assert f"{DB} stays" in cleaned.stderr
    assert sorted(listed(do)) == [f"{DB}*", DEBIAN]
    do("terminate", DB)


def test_layers_that_no_snapshot_needs_become_one(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    changes = (
        "echo 1 >/own; mkdir -p /opt/a/b; echo x >/opt/a/b/x; rm -r /usr/share/doc",
        "echo 2 >/own; rm -r /opt/a; mkdir -p /opt/a; touch /opt/a/y; mkdir /usr/share/doc",
        "rm /own; rm /etc/hosts; ln -s y /opt/a/z; chmod 700 /opt; rm -r /srv",
        "echo 4 >/own; touch /usr/share/doc/new; mkdir /srv; touch /srv/x",
    )
    for number, script in enumerate(changes):
        sh(WEB, script)
        do("snapshot", WEB, str(number))
    of_all, of_files = "%p %y %m %U", "%p %y %m %U %s %l"
    tell = f"-type d -printf '{of_all}\\n' -o -printf '{of_files}\\n'"
    look = f"cd /; find opt usr/share/doc srv own etc {tell} | sort"
    before = sh(WEB, look)
    for number in (0, 1):
        do("remove", f"{WEB}@{number}")
    layers = len(os.listdir(STORE / "layers"))
    said = pymachine("prune", WEB)
    assert said.returncode == 0, said
    if kind != "btrfs":
        assert "another: 2." in said.stderr
        assert len(os.listdir(STORE / "layers")) == layers - 2
    assert sh(WEB, look) == before
    do("rollback", WEB, "2")
    assert sh(WEB, "ls /own /etc/hosts 2>/dev/null; ls /opt/a; stat -c %a /opt") == "y\nz\n700\n"
    do("rollback", WEB, "3")
    assert sh(WEB, look) == before


def test_old_snapshots_are_pruned(do, sh, kind):
    do("create", DEBIAN, WEB)
    do("snapshot", WEB, "mine")
    do("snapshot", WEB)
    assert len(do("snapshots", WEB, "--no-legend").splitlines()) == 2
    pruned = do("prune", "--keep=0")
    assert pruned.startswith(f"{WEB}@20")
    assert [row["tag"] for row in json.loads(do("snapshots", "-j"))] == ["mine"]


def test_snapshots_of_one_second_have_tags_of_their_own(do, kind):
    do("create", DEBIAN, WEB)
    tags = [do("snapshot", WEB, "--keep=3").strip() for _ in range(5)]
    assert len(set(tags)) == 5
    assert [row["tag"] for row in json.loads(do("snapshots", WEB, "-j"))] == tags[2:]


def test_what_a_crash_left_is_found_and_mended(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    (STORE / "layers/0123456789abcdef/upper/deep").mkdir(parents=True)
    (STORE / "tmp/fedcba9876543210/tree").mkdir(parents=True)
    (STORE / f"machines/.{DB}.4711").write_text('{"driver": ')
    (IMAGES / ".#pymachine.abc/tree").mkdir(parents=True)
    (IMAGES / ".#other.new/etc").mkdir(parents=True)
    (IMAGES / ".#third.lck").touch()
    checked = pymachine("fsck", "--check")
    assert checked.returncode == 1
    assert checked.stdout.count("can be mended") == 6
    mended = pymachine("fsck")
    assert (mended.returncode, mended.stdout.count(": mended")) == (0, 6)
    assert os.listdir(IMAGES) == [DEBIAN]
    whole = pymachine("fsck")
    assert (whole.returncode, whole.stdout) == (0, "")
    assert sh(WEB, "cat /own") == "1\n"


def test_what_is_being_made_is_nothing_that_a_crash_left(kind, pymachine):
    (IMAGES / ".#other.new/etc").mkdir(parents=True)
    lock = take_lock(f"{IMAGES}/.#other.lck")
    try:
        checked = pymachine("fsck")
        assert (checked.returncode, checked.stdout) == (0, "")
        assert (IMAGES / ".#other.new/etc").is_dir()
        assert (IMAGES / ".#other.lck").exists()
    finally:
        drop_lock(f"{IMAGES}/.#other.lck", lock)
    assert pymachine("fsck").stdout.count(": mended") == 1


def test_what_cannot_be_mended_is_told_and_nothing_is_removed(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    record = STORE / f"machines/{WEB}.json"
    text = record.read_text()
    record.write_text(text[:20])
    layers = os.listdir(STORE / "layers")
    checked = pymachine("fsck")
    assert checked.returncode == 1
    assert "damaged" in checked.stdout
    assert "NOT MENDED" in checked.stdout
    assert "damaged" in one_error(pymachine("images"))
    assert "damaged" in one_error(pymachine("remove", DEBIAN))
    assert os.listdir(STORE / "layers") == layers
    record.write_text(text)
    assert sh(WEB, "echo on") == "on\n"


def test_an_ephemeral_machine_that_never_started_is_mended(do, kind, pymachine):
    do("create", DEBIAN, WEB)
    record = json.loads((STORE / f"machines/{WEB}.json").read_text())
    record |= {"ephemeral": True, "created": 1}
    (STORE / f"machines/{WEB}.json").write_text(json.dumps(record))
    assert "ephemeral" in pymachine("fsck").stdout
    assert list(listed(do)) == [DEBIAN]
    assert os.listdir(STORE / "layers") == []
    do("read-only", DEBIAN)  # as its mark is known to nobody any more
    do("read-only", DEBIAN, "no")


def test_a_limit_is_held_where_the_file_system_can(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    said = pymachine("set-limit", WEB, "600M")
    if kind != "btrfs":
        assert "quotas" in one_error(said)
        return
    assert said.returncode == 0, said
    assert do("show-image", WEB, "-p", "Limit", "--value") == f"{600 << 20}\n"
    write = "dd if=/dev/zero of=/large bs=1M count=500 conv=fsync 2>&1"
    assert "quota" in sh(WEB, f"{write}; true").lower()
    do("set-limit", WEB, "-")
    assert "alone can be limited" in one_error(pymachine("set-limit", "1G"))  # no subvolume
    assert do("show-image", WEB, "-p", "Limit", "-a") == "Limit=\n"
    assert "500+0" in sh(WEB, f"{write}; rm /large")


def test_a_limit_is_held_by_the_quota_of_a_project(pristine_tree, pymachine):
    options = {"make": ("-O", "quota,project", "-E", "quotatype=prjquota"), "mount": "prjquota"}
    try:
        with pools.pool("ext4", megabytes=1500, **options):
            pools.put_image(pristine_tree, DEBIAN, "ext4")
            for words in (("create", DEBIAN, WEB), ("set-limit", WEB, "20M")):
                done = pymachine(*words)
                assert done.returncode == 0, done
            script = "dd if=/dev/zero of=/large bs=1M count=50; stat -c %s /large; rm /large"
            done = pymachine("run", WEB, "--", "/bin/sh", "-c", script)
            assert "quota" in done.stderr.lower(), done
            assert 15 << 20 < int(done.stdout) < 20 << 20
            # The limit is of the new layer too.
            subprocess.run(pymachine.command("run", WEB, "--", "touch", "/own"), check=True)
            assert pymachine("snapshot", WEB, "one").returncode == 0
            shown = pymachine("show-image", WEB, "-p", "Limit", "--value")
            assert shown.stdout == f"{20 << 20}\n"
            assert "quota" in pymachine("run", WEB, "--", "sh", "-c", script).stderr.lower()
            assert pymachine("remove", WEB).returncode == 0
    except pools.NoLoops as error:
        pytest.skip(str(error))
