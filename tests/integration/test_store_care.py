"""Care of images and machines: names, marks, limits, what is hidden, what is left over."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration import pools
from tests.integration.test_boot import one_error
from tests.integration.test_machines_of_images import STORE, do, kind, listed, pool, sh

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
__all__ = ("do", "kind", "pool", "sh")  # fixtures

IMAGES = Path("/var/lib/machines")


def test_a_machine_is_renamed_with_all_that_is_its_own(do, sh, kind, pymachine):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    do("snapshot", "web", "one")
    Path("/etc/systemd/nspawn").mkdir(exist_ok=True, parents=True)
    settings = Path("/etc/systemd/nspawn/web.nspawn")
    settings.write_text("[Exec]\nEnvironment=MARK=here\n")
    try:
        do("rename", "web", "shop")
        assert not settings.exists()
        assert sh("shop", "cat /own; echo $MARK") == "1\nhere\n"
        assert "web@one" not in do("snapshots")
        do("rollback", "shop", "one")
        do("clone", "shop", "db")
        assert sh("db", "echo $MARK") == "here\n"
        assert "exists already" in one_error(pymachine("rename", "shop", "db"))
        assert "no image 'web'" in one_error(pymachine("rename", "web", "x"))
    finally:
        do("remove", "shop")
        do("remove", "db")
    assert not list(Path("/etc/systemd/nspawn").glob("*.nspawn"))


def test_an_image_is_renamed_unless_it_is_in_use(do, sh, kind, pymachine):
    do("create", "debian", "web")
    assert "web" in one_error(pymachine("rename", "debian", "other"))
    do("remove", "web")
    do("read-only", "debian")
    do("rename", "debian", "other")
    assert listed(do)["other"]["ro"] is True
    do("rename", "other", "debian")
    do("read-only", "debian", "no")
    assert listed(do)["debian"]["ro"] is False


def test_a_read_only_image_stays_so_and_a_machine_is_started_so(do, sh, kind, pymachine):
    do("create", "debian", "web")
    do("read-only", "web")
    assert sh("web", "touch /own 2>/dev/null || echo read-only") == "read-only\n"
    do("read-only", "web", "no")
    assert sh("web", "touch /own && echo made") == "made\n"
    assert "stand on it" in one_error(pymachine("read-only", "debian", "no"))
    do("read-only", "debian")
    do("remove", "web")
    assert listed(do)["debian"]["ro"] is True
    assert sh("debian", "touch /own && echo made") == "made\n"  # of a machine of that name
    assert not (IMAGES / "debian/own").exists()
    do("remove", "debian")
    do("read-only", "debian", "no")


def test_properties_have_machinectls_names(do, sh, kind):
    do("create", "debian", "web")
    do("snapshot", "web", "one")
    shown = json.loads(do("show-image", "web", "debian", "--json=short"))
    assert shown[0]["Name"] == "web"
    assert shown[0]["Snapshots"] == ["one"]
    assert shown[0]["Driver"] == listed(do)["web*"]["driver"]
    assert shown[0]["OSPrettyName"].startswith("Debian GNU/Linux")
    assert shown[1]["Users"] == ["web"]
    assert shown[1]["Usage"] > 50 << 20
    assert do("show-image", "debian", "-p", "Path", "--value") == "/var/lib/machines/debian\n"
    status = do("image-status", "debian", "web")
    assert "RO: read-only" in status
    assert "OS: Debian GNU/Linux" in status
    assert "PoolPath=/var/lib/machines" in do("show-image")


def test_hidden_images_are_cleaned_and_others_only_if_asked(do, kind, pymachine, tmp_path):
    (IMAGES / ".hidden/deep").mkdir(parents=True)
    (IMAGES / ".hidden/deep/file").write_bytes(bytes(1 << 20))
    (IMAGES / ".old.raw").touch()
    assert {".hidden", ".old"} <= {row["name"] for row in json.loads(do("images", "-aj"))}
    cleaned = pymachine("clean")
    assert (cleaned.returncode, sorted(cleaned.stdout.split())) == (0, [".hidden", ".old"])
    assert "freed: 1.0M" in cleaned.stderr
    assert list(listed(do)) == ["debian"]
    do("create", "debian", "web")
    do("snapshot", "web", "one")
    pools.put_image(tmp_path, "other", kind)
    do("boot", "debian", "-M", "db")
    cleaned = pymachine("clean", "--all")
    assert cleaned.returncode == 1
    assert "db stays" in cleaned.stderr
    assert sorted(listed(do)) == ["db*", "debian"]
    do("terminate", "db")


def test_layers_that_no_snapshot_needs_become_one(do, sh, kind, pymachine):
    do("create", "debian", "web")
    changes = (
        "echo 1 >/own; mkdir -p /opt/a/b; echo x >/opt/a/b/x; rm -r /usr/share/doc",
        "echo 2 >/own; rm -r /opt/a; mkdir -p /opt/a; touch /opt/a/y; mkdir /usr/share/doc",
        "rm /own; rm /etc/hosts; ln -s y /opt/a/z; chmod 700 /opt; rm -r /srv",
        "echo 4 >/own; touch /usr/share/doc/new; mkdir /srv; touch /srv/x",
    )
    for number, script in enumerate(changes):
        sh("web", script)
        do("snapshot", "web", str(number))
    of_all, of_files = "%p %y %m %U", "%p %y %m %U %s %l"
    tell = f"-type d -printf '{of_all}\\n' -o -printf '{of_files}\\n'"
    look = f"cd /; find opt usr/share/doc srv own etc {tell} | sort"
    before = sh("web", look)
    for number in (0, 1):
        do("remove", f"web@{number}")
    layers = len(os.listdir(STORE / "layers"))
    said = pymachine("prune", "web")
    assert said.returncode == 0, said
    if kind != "btrfs":
        assert "another: 2." in said.stderr
        assert len(os.listdir(STORE / "layers")) == layers - 2
    assert sh("web", look) == before
    do("rollback", "web", "2")
    assert sh("web", "ls /own /etc/hosts 2>/dev/null; ls /opt/a; stat -c %a /opt") == "y\nz\n700\n"
    do("rollback", "web", "3")
    assert sh("web", look) == before


def test_old_snapshots_are_pruned(do, sh, kind):
    do("create", "debian", "web")
    do("snapshot", "web", "mine")
    do("snapshot", "web")
    assert len(do("snapshots", "web", "--no-legend").splitlines()) == 2
    pruned = do("prune", "--keep=0")
    assert pruned.startswith("web@20")
    assert [row["tag"] for row in json.loads(do("snapshots", "-j"))] == ["mine"]


def test_what_a_crash_left_is_found_and_mended(do, sh, kind, pymachine):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    (STORE / "layers/0123456789abcdef/upper/deep").mkdir(parents=True)
    (STORE / "tmp/fedcba9876543210/tree").mkdir(parents=True)
    (STORE / "machines/.db.4711").write_text('{"driver": ')
    (IMAGES / ".#pymachine.abc/tree").mkdir(parents=True)
    (IMAGES / ".#other.new/etc").mkdir(parents=True)
    checked = pymachine("fsck", "--check")
    assert checked.returncode == 1
    assert checked.stdout.count("can be mended") == 5
    mended = pymachine("fsck")
    assert (mended.returncode, mended.stdout.count(": mended")) == (0, 5)
    assert os.listdir(IMAGES) == ["debian"]
    whole = pymachine("fsck")
    assert (whole.returncode, whole.stdout) == (0, "")
    assert sh("web", "cat /own") == "1\n"


def test_what_cannot_be_mended_is_told_and_nothing_is_removed(do, sh, kind, pymachine):
    do("create", "debian", "web")
    record = STORE / "machines/web.json"
    text = record.read_text()
    record.write_text(text[:20])
    layers = os.listdir(STORE / "layers")
    checked = pymachine("fsck")
    assert checked.returncode == 1
    assert "damaged" in checked.stdout
    assert "NOT MENDED" in checked.stdout
    assert "damaged" in one_error(pymachine("images"))
    assert "damaged" in one_error(pymachine("remove", "debian"))
    assert os.listdir(STORE / "layers") == layers
    record.write_text(text)
    assert sh("web", "echo on") == "on\n"


def test_an_ephemeral_machine_that_never_started_is_mended(do, kind, pymachine):
    do("create", "debian", "web")
    record = json.loads((STORE / "machines/web.json").read_text())
    record |= {"ephemeral": True, "created": 1}
    (STORE / "machines/web.json").write_text(json.dumps(record))
    assert "ephemeral" in pymachine("fsck").stdout
    assert list(listed(do)) == ["debian"]
    assert os.listdir(STORE / "layers") == []
    do("read-only", "debian")  # as its mark is known to nobody any more
    do("read-only", "debian", "no")


def test_a_limit_is_held_where_the_file_system_can(do, sh, kind, pymachine):
    do("create", "debian", "web")
    said = pymachine("set-limit", "web", "600M")
    if kind != "btrfs":
        assert "quotas" in one_error(said)
        return
    assert said.returncode == 0, said
    assert do("show-image", "web", "-p", "Limit", "--value") == f"{600 << 20}\n"
    write = "dd if=/dev/zero of=/large bs=1M count=500 conv=fsync 2>&1"
    assert "quota" in sh("web", f"{write}; true").lower()
    do("set-limit", "web", "-")
    assert do("show-image", "web", "-p", "Limit", "-a") == "Limit=\n"
    assert "500+0" in sh("web", f"{write}; rm /large")


def test_a_limit_is_held_by_the_quota_of_a_project(pristine_tree, pymachine):
    options = {"make": ("-O", "quota,project", "-E", "quotatype=prjquota"), "mount": "prjquota"}
    try:
        with pools.pool("ext4", megabytes=1500, **options):
            pools.put_image(pristine_tree, "debian", "ext4")
            for words in (("create", "debian", "web"), ("set-limit", "web", "20M")):
                done = pymachine(*words)
                assert done.returncode == 0, done
            script = "dd if=/dev/zero of=/large bs=1M count=50; stat -c %s /large; rm /large"
            done = pymachine("run", "web", "--", "/bin/sh", "-c", script)
            assert "quota" in done.stderr.lower(), done
            assert 15 << 20 < int(done.stdout) < 20 << 20
            # The limit is of the new layer too.
            subprocess.run(pymachine.command("run", "web", "--", "touch", "/own"), check=True)
            assert pymachine("snapshot", "web", "one").returncode == 0
            shown = pymachine("show-image", "web", "-p", "Limit", "--value")
            assert shown.stdout == f"{20 << 20}\n"
            assert "quota" in pymachine("run", "web", "--", "sh", "-c", script).stderr.lower()
            assert pymachine("remove", "web").returncode == 0
    except pools.NoLoops as error:
        pytest.skip(str(error))
