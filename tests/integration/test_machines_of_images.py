"""Machines that are made of images, on each file system: their own, and the same to the user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration import pools
from tests.integration.test_boot import one_error, property_of, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

STORE = Path("/var/lib/pymachine")


@pytest.fixture(scope="module", params=pools.KINDS)
def pool(request, pristine_tree):
    """A file system with the image `debian`; says its kind."""
    try:
        with pools.pool(request.param):
            pools.put_image(pristine_tree, "debian", request.param)
            yield request.param
    except pools.NoLoops as error:
        pytest.skip(str(error))


@pytest.fixture
def kind(pool, pymachine):
    """The pool's kind; what a test made there is removed, and then nothing may be left."""
    yield pool
    for machine in json.loads(pymachine("images", "--json=short").stdout):
        if machine["driver"]:
            if os.path.exists(f"/run/pymachine/machines/{machine['name']}"):
                pymachine("terminate", machine["name"])
            removed = pymachine("remove", machine["name"])
            assert removed.returncode == 0, removed
    assert [
        path for place in ("machines", "layers", "tmp") for path in STORE.glob(f"{place}/*")
    ] == []
    assert [name for name in os.listdir("/var/lib/machines") if name != "debian"] == []


@pytest.fixture
def do(pymachine):
    """Run a verb that has to succeed; return what it prints."""

    def run(*words):
        done = pymachine(*words)
        assert done.returncode == 0, (words, done)
        return done.stdout

    return run


@pytest.fixture
def sh(do):
    """Run a shell in a machine; return what it prints."""
    return lambda machine, script: do("run", machine, "--", "/bin/sh", "-c", script)


def listed(do):
    """Return images (by name) and machines (by name and "*")."""
    rows = json.loads(do("images", "--json=short"))
    return {row["name"] + "*" * bool(row["driver"]): row for row in rows}


def test_a_machine_is_its_own_and_takes_no_room(do, sh, kind):
    do("create", "debian", "web")
    row = listed(do)["web*"]
    assert row["driver"] == ("btrfs" if kind == "btrfs" else "overlay")
    assert row["from"] == "debian"
    if row["usage"] is not None:
        assert row["usage"] < 1 << 16
    sh("web", "echo mine >/own; rm -r /usr/share/doc; mv /etc/apt /etc/apt2; chmod 600 /etc/fstab")
    assert sh("web", "cat /own; test ! -e /usr/share/doc; ls -d /etc/apt2") == "mine\n/etc/apt2\n"
    image = Path("/var/lib/machines/debian")
    assert not (image / "own").exists()
    assert (image / "etc/apt").is_dir()
    do("create", "debian", "db")
    assert sh("db", "ls -d /etc/apt; test ! -e /own") == "/etc/apt\n"


def test_machines_have_a_user_namespace_where_they_can(do, sh, kind):
    do("create", "debian", "web")
    script = "touch /own; chown 1000:7 /own; stat -c %u:%g /own /etc/passwd; cat /proc/self/uid_map"
    first, second, ids = sh("web", script).split("\n", 2)
    assert (first, second) == ("1000:7", "0:0")
    assert ids.split()[2] == "65536", ids
    # Stored as inside, so that any range will do.
    (own,) = STORE.glob("layers/*/*/own")
    assert (own.stat().st_uid, own.stat().st_gid) == (1000, 7)


def test_a_boot_under_another_name_makes_the_machine_once(do, sh, kind, pymachine):
    do("boot", "debian", "-M", "web")
    assert property_of(pymachine, "web", "Driver") == listed(do)["web*"]["driver"]
    assert property_of(pymachine, "web", "Image") == "debian"
    do("exec", "web", "--", "touch", "/own")
    do("poweroff", "web")
    do("boot", "debian", "-M", "web")
    assert do("exec", "web", "--", "ls", "/own") == "/own\n"
    assert "running" in one_error(pymachine("clone", "web", "db"))
    assert "running" in one_error(pymachine("remove", "web"))
    do("poweroff", "web")
    assert "made from 'debian'" in one_error(pymachine("boot", "other", "-M", "web"))
    do("create", "debian", "db")
    assert "not from 'db'" in one_error(pymachine("run", "db", "-M", "web", "--", "true"))


def test_an_image_in_use_is_not_to_be_changed(do, sh, kind, pymachine):
    do("create", "debian", "web")
    assert listed(do)["debian"]["users"] == ["web"]
    assert listed(do)["debian"]["ro"] is True
    assert "web" in one_error(pymachine("remove", "debian"))
    in_place = pymachine("run", "-D", "/var/lib/machines/debian", "--", "true")
    assert "machines stand on it: web" in one_error(in_place)
    # By its own name it is booted as a machine of that name.
    sh("debian", "touch /own")
    assert listed(do)["debian*"]["from"] == "debian"
    assert not Path("/var/lib/machines/debian/own").exists()
    do("remove", "debian")
    assert "debian*" not in listed(do)
    do("remove", "web")
    assert listed(do)["debian"]["ro"] is False
    assert sh("debian", "touch /in-place && rm /in-place; echo ok") == "ok\n"
    assert "debian*" not in listed(do)


def test_a_clone_begins_as_the_machine_is(do, sh, kind):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    do("clone", "web", "db")
    sh("web", "echo 2 >/own")
    assert sh("db", "cat /own; echo 3 >/own") == "1\n"
    assert sh("web", "cat /own") == "2\n"
    do("reset", "db")
    assert sh("db", "ls /own 2>&1; true") == "ls: cannot access '/own': No such file or directory\n"
    do("remove", "db")
    assert sh("web", "cat /own") == "2\n"


def test_a_machine_of_a_machine_has_it_as_its_image(do, sh, kind):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    do("create", "web", "db")
    sh("db", "echo 2 >/own")
    do("remove", "web")
    do("reset", "db")
    assert sh("db", "cat /own") == "1\n"


def test_an_ephemeral_machine_leaves_the_one_that_it_is_of(do, sh, kind, pymachine):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    said = do("run", "web", "--ephemeral", "--", "/bin/sh", "-c", "cat /own; echo 2 >/own")
    assert said == "1\n"
    assert sh("web", "cat /own") == "1\n"
    do("boot", "web", "--ephemeral", "-M", "gone")
    os.kill(int(property_of(pymachine, "gone", "Supervisor")), signal.SIGKILL)
    wait_until(lambda: "gone" not in pymachine("list").stdout)
    assert sorted(listed(do)) == ["debian", "web*"]


def test_nspawn_finds_machines_by_name_too(do, sh, kind, pymachine):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    nspawn = ("nspawn", "-q", "-M", "web", "--console=pipe", "--register=no")
    assert do(*nspawn, "/bin/sh", "-c", "cat /own; echo 2 >/own") == "1\n"
    assert do(*nspawn, "-x", "/bin/sh", "-c", "cat /own; echo 3 >/own") == "2\n"
    assert sh("web", "cat /own") == "2\n"
    settings = Path("/run/systemd/nspawn/web.nspawn")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Exec]\nEphemeral=yes\n")
    try:
        assert "ephemeral" in one_error(pymachine("run", "web", "--", "true"))
    finally:
        settings.unlink()


def test_of_two_boots_at_once_that_make_the_machine_one_wins(do, kind, pymachine):
    for _ in range(3):
        command = pymachine.command("boot", "-q", "debian", "-M", "web")
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = sorted(process.communicate()[1] for process in both)
        assert sorted(process.returncode for process in both) == [0, 1], said
        assert said[0] == ""
        assert said[1].startswith("pymachine: Machine 'web' is running already"), said
        do("terminate", "web")
        do("remove", "web")


def test_a_plan_makes_nothing(do, kind):
    for _ in range(2):
        planned = do("plan", "debian", "-M", "web")
        assert ("mount overlay lowerdir=/var/lib/machines/debian," in planned) == (kind != "btrfs")
        assert list(listed(do)) == ["debian"]


def test_each_machine_has_an_id_of_its_own(do, sh, kind):
    path = Path("/var/lib/machines/debian/etc/machine-id")
    before = path.read_text()
    try:
        path.write_text("0123456789abcdef0123456789abcdef\n")
        do("create", "debian", "web")
        do("clone", "web", "db")
        ids = {sh(name, "cat /etc/machine-id") for name in ("web", "db")}
        assert len(ids) == 2
        assert path.read_text() not in ids
        kept = sh("web", "cat /etc/machine-id")
        do("reset", "web")
        assert sh("web", "cat /etc/machine-id") == kept
        do("remove", "web")
        do("remove", "db")
    finally:
        path.write_text(before)


def test_a_snapshot_is_what_was_and_can_be_gone_back_to(do, sh, kind, pymachine):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own; rm -r /usr/share/doc; mkdir /usr/share/doc; mv /etc/apt /etc/apt2")
    assert do("snapshot", "web", "one") == "one\n"
    sh("web", "echo 2 >/own; touch /usr/share/doc/new; rm -r /etc/apt2; mkdir -p /opt/a/b")
    do("snapshot", "web", "two")
    assert "already" in one_error(pymachine("snapshot", "web", "two"))
    do("rollback", "web", "one", "--keep=three")
    assert sh("web", "cat /own; ls /usr/share/doc; ls -d /etc/apt2") == "1\n/etc/apt2\n"
    do("rollback", "web", "two")
    assert sh("web", "cat /own; ls /usr/share/doc /opt") == "2\n/opt:\na\n\n/usr/share/doc:\nnew\n"
    do("reset", "web", "--keep=four")
    assert sh("web", "ls -d /own /etc/apt /etc/apt2 2>/dev/null; true") == "/etc/apt\n"
    do("rollback", "web", "four")
    assert sh("web", "cat /own") == "2\n"
    rows = json.loads(do("snapshots", "web", "--json=short"))
    assert [row["tag"] for row in rows] == ["one", "two", "three", "four"]
    do("remove", "web@one")
    do("create", "web@three", "db")
    do("remove", "web@three")
    assert sh("db", "cat /own") == "2\n"
    assert "no snapshot 'one'" in one_error(pymachine("rollback", "web", "one"))


def test_what_differs_is_told(do, sh, kind, pymachine):
    do("create", "debian", "web")
    assert do("diff", "web") in ("", "~ /etc/machine-id\n")
    sh(
        "web",
        "echo 1 >/own; rm -r /usr/share/doc; mv /etc/apt /etc/apt2; chmod 700 /srv;"
        " cp -a /etc/fstab /x; cat /x >/etc/fstab; rm /x; echo >>/etc/passwd; mkdir -p /opt/a/b;"
        " rm -r /usr/share/man; mkdir /usr/share/man; touch /usr/share/man/own",
    )
    lines = do("diff", "web").splitlines()
    for line in ("+ /own", "- /usr/share/doc", "- /etc/apt", "+ /etc/apt2", "~ /srv"):
        assert line in lines, lines
    assert "~ /etc/fstab" not in lines
    assert {"~ /etc/passwd", "+ /opt/a", "+ /usr/share/man/own"} <= set(lines)
    assert "+ /opt/a/b" not in lines
    do("snapshot", "web", "one")
    assert do("diff", "web", "one") == ""
    sh("web", "rm /own; touch /etc/apt2/new")
    assert do("diff", "web", "one") == "+ /etc/apt2/new\n- /own\n"
    found = json.loads(do("diff", "web", "one", "--json=short"))
    assert found[1] == {"kind": "removed", "path": "/own", "type": "file"}
    one_error(pymachine("diff", "debian"))


def test_an_image_that_is_used_in_place_becomes_one_with_its_first_snapshot(do, sh, kind):
    sh("debian", "echo 1 >/in-place")
    do("snapshot", "debian", "one")
    sh("debian", "echo 2 >/in-place")
    assert Path("/var/lib/machines/debian/in-place").read_text() == "1\n"
    assert do("diff", "debian", "one") == "~ /in-place\n"
    do("rollback", "debian", "one")
    assert sh("debian", "cat /in-place") == "1\n"
    do("remove", "debian")
    sh("debian", "rm /in-place")


def test_a_commit_makes_an_image_that_stands_alone(do, sh, kind, pymachine):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own; rm -r /usr/share/doc; mv /etc/apt /etc/apt2; ln /own /own2")
    assert do("commit", "web", "golden") == "/var/lib/machines/golden\n"
    do("remove", "web")
    assert listed(do)["golden"]["ro"] is True
    script = "cat /own; ls -d /usr/share/doc /etc/apt /etc/apt2 2>/dev/null; stat -c %h /own"
    assert sh("golden", script) == "1\n/etc/apt2\n2\n"
    assert "exists" in one_error(pymachine("commit", "golden", "golden"))
    do("remove", "golden")
    do("remove", "golden")


def test_a_machine_is_exported_as_it_is(do, sh, kind, pymachine, tmp_path):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own; rm -r /usr/share/doc")
    do("export-tar", "-q", "web", tmp_path / "web.tar")
    listing = subprocess.run(
        ["tar", "-tf", tmp_path / "web.tar"], check=True, capture_output=True, text=True
    )
    names = set(listing.stdout.splitlines())
    assert {"./own", "./etc/os-release"} <= names
    assert "./usr/share/doc/" not in names
    assert "no disk image" in one_error(pymachine("export-raw", "-q", "web", tmp_path / "web.raw"))


def test_a_machine_that_runs_is_frozen_for_a_snapshot(do, sh, kind, pymachine):
    do("boot", "debian", "-M", "web")
    do("exec", "web", "--", "sh", "-c", "echo 1 >/own; sync")
    assert "running" in one_error(pymachine("snapshot", "web", "one"))
    do("snapshot", "--running", "web", "one")
    do("exec", "web", "--", "sh", "-c", "echo 2 >/own")
    for _ in range(3):
        do("snapshot", "--running", "--keep=2", "web")
        time.sleep(1)
    rows = json.loads(do("snapshots", "web", "--json=short"))
    assert len(rows) == 3
    assert rows[0]["tag"] == "one"
    assert all(row["running"] for row in rows)
    assert do("exec", "web", "--", "systemctl", "is-system-running", "--wait") == "running\n"
    do("poweroff", "web")
    do("rollback", "web", "one")
    assert sh("web", "cat /own") == "1\n"
    do("rollback", "web", rows[1]["tag"])
    assert sh("web", "cat /own") == "2\n"
    do("boot", "web")


def test_a_killed_snapshot_leaves_the_machine_running(do, kind, pymachine):
    do("boot", "debian", "-M", "web")
    do("exec", "web", "--", "dd", "if=/dev/zero", "of=/large", "bs=1M", "count=100", "status=none")
    cgroup = Path(property_of(pymachine, "web", "CGroup"), "payload/cgroup.freeze")
    process = subprocess.Popen(pymachine.command("snapshot", "--running", "web", "one"))
    deadline = time.monotonic() + 10
    seen = False
    while process.poll() is None and not seen and time.monotonic() < deadline:
        seen = cgroup.read_text() == "1\n"
    process.kill()
    process.wait()
    assert seen
    wait_until(lambda: cgroup.read_text() == "0\n")
    assert do("exec", "web", "--", "echo", "on") == "on\n"


def test_wrong_words_are_told_in_one_line(do, kind, pymachine):
    do("create", "debian", "web")
    assert "exists already" in one_error(pymachine("create", "debian", "web"))
    assert "debian" in one_error(pymachine("create", "web", "debian"))
    assert "no image 'nothing'" in one_error(pymachine("create", "nothing", "db"))
    assert "no valid" in one_error(pymachine("create", "debian", "a/b"))
    assert "tag" in one_error(pymachine("snapshot", "web", "../x"))
    assert "no snapshot 'x'" in one_error(pymachine("create", "web@x", "db"))
    assert "no image 'nothing'" in one_error(pymachine("rollback", "nothing", "x"))
    assert "no machine has been made" in one_error(pymachine("reset", "debian"))  # not of it
