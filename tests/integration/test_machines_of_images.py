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
from tests.integration.pools import DB, DEBIAN, GOLDEN, GONE, WEB
from tests.integration.test_boot import one_error, property_of
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

STORE = Path("/var/lib/pymachine")


@pytest.fixture(scope="module", params=pools.KINDS)
def pool(request, pristine_tree):
    """A file system with the image `debian`; says its kind."""
    try:
        with pools.pool(request.param):
            pools.put_image(pristine_tree, DEBIAN, request.param)
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
    left = [name for name in os.listdir("/var/lib/machines") if name != DEBIAN]
    for name in left:  # of a test that failed
        pymachine("remove", name)
    assert left == []


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
    do("create", DEBIAN, WEB)
    row = listed(do)[f"{WEB}*"]
    assert row["driver"] == ("btrfs" if kind == "btrfs" else "overlay")
    assert row["from"] == DEBIAN
    if row["usage"] is not None:
        assert row["usage"] < 1 << 16
    sh(WEB, "echo mine >/own; rm -r /usr/share/doc; mv /etc/apt /etc/apt2; chmod 600 /etc/fstab")
    assert sh(WEB, "cat /own; test ! -e /usr/share/doc; ls -d /etc/apt2") == "mine\n/etc/apt2\n"
    image = Path(f"/var/lib/machines/{DEBIAN}")
    assert not (image / "own").exists()
    assert (image / "etc/apt").is_dir()
    do("create", DEBIAN, DB)
    assert sh(DB, "ls -d /etc/apt; test ! -e /own") == "/etc/apt\n"


def test_machines_have_a_user_namespace_where_they_can(do, sh, kind):
    do("create", DEBIAN, WEB)
    script = "touch /own; chown 1000:7 /own; stat -c %u:%g /own /etc/passwd; cat /proc/self/uid_map"
    first, second, ids = sh(WEB, script).split("\n", 2)
    assert (first, second) == ("1000:7", "0:0")
    assert ids.split()[2] == "65536", ids
    # Stored as inside, so that any range will do.
    (own,) = STORE.glob("layers/*/*/own")
    assert (own.stat().st_uid, own.stat().st_gid) == (1000, 7)


def test_a_boot_under_another_name_makes_the_machine_once(do, sh, kind, pymachine):
    do("boot", DEBIAN, "-M", WEB)
    assert property_of(pymachine, WEB, "Driver") == listed(do)[f"{WEB}*"]["driver"]
    assert property_of(pymachine, WEB, "Image") == DEBIAN
    do("exec", WEB, "--", "touch", "/own")
    do("poweroff", WEB)
    do("boot", DEBIAN, "-M", WEB)
    assert do("exec", WEB, "--", "ls", "/own") == "/own\n"
    assert "running" in one_error(pymachine("clone", WEB, DB))
    assert "running" in one_error(pymachine("remove", WEB))
    do("poweroff", WEB)
    assert f"made from '{DEBIAN}'" in one_error(pymachine("boot", "other", "-M", WEB))
    do("create", DEBIAN, DB)
    assert f"not from '{DB}'" in one_error(pymachine("run", DB, "-M", WEB, "--", "true"))


def test_an_image_in_use_is_not_to_be_changed(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    assert listed(do)[DEBIAN]["users"] == [WEB]
    assert listed(do)[DEBIAN]["ro"] is True
    assert WEB in one_error(pymachine("remove", DEBIAN))
    in_place = pymachine("run", "-D", f"/var/lib/machines/{DEBIAN}", "--", "true")
    assert f"machines stand on it: {WEB}" in one_error(in_place)
    # By its own name it is booted as a machine of that name.
    sh(DEBIAN, "touch /own")
    assert listed(do)[f"{DEBIAN}*"]["from"] == DEBIAN
    assert not Path(f"/var/lib/machines/{DEBIAN}/own").exists()
    do("remove", DEBIAN)
    assert f"{DEBIAN}*" not in listed(do)
    do("remove", WEB)
    assert listed(do)[DEBIAN]["ro"] is False
    assert sh(DEBIAN, "touch /in-place && rm /in-place; echo ok") == "ok\n"
    assert f"{DEBIAN}*" not in listed(do)


def test_a_clone_begins_as_the_machine_is(do, sh, kind):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    do("clone", WEB, DB)
    sh(WEB, "echo 2 >/own")
    assert sh(DB, "cat /own; echo 3 >/own") == "1\n"
    assert sh(WEB, "cat /own") == "2\n"
    do("reset", DB)
    assert sh(DB, "ls /own 2>&1; true") == "ls: cannot access '/own': No such file or directory\n"
    do("remove", DB)
    assert sh(WEB, "cat /own") == "2\n"


def test_a_machine_of_a_machine_has_it_as_its_image(do, sh, kind):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    do("create", WEB, DB)
    sh(DB, "echo 2 >/own")
    do("remove", WEB)
    do("reset", DB)
    assert sh(DB, "cat /own") == "1\n"


def test_an_ephemeral_machine_leaves_the_one_that_it_is_of(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    said = do("run", WEB, "--ephemeral", "--", "/bin/sh", "-c", "cat /own; echo 2 >/own")
    assert said == "1\n"
    assert sh(WEB, "cat /own") == "1\n"
    wrong = ("run", WEB, "--ephemeral", "--bind=/no/such/place", "--", "true")
    assert "/no/such/place" in one_error(pymachine(*wrong))
    assert sorted(listed(do)) == [DEBIAN, f"{WEB}*"]
    do("boot", WEB, "--ephemeral", "-M", GONE)
    os.kill(int(property_of(pymachine, GONE, "Supervisor")), signal.SIGKILL)
    wait_for(lambda: GONE not in pymachine("list").stdout)
    assert sorted(listed(do)) == [DEBIAN, f"{WEB}*"]


def test_nspawn_finds_machines_by_name_too(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    nspawn = ("nspawn", "-q", "-M", WEB, "--console=pipe", "--register=no")
    assert do(*nspawn, "/bin/sh", "-c", "cat /own; echo 2 >/own") == "1\n"
    assert do(*nspawn, "-x", "/bin/sh", "-c", "cat /own; echo 3 >/own") == "2\n"
    assert sh(WEB, "cat /own") == "2\n"
    settings = Path(f"/run/systemd/nspawn/{WEB}.nspawn")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Exec]\nEphemeral=yes\n")
    try:
        assert "ephemeral" in one_error(pymachine("run", WEB, "--", "true"))
    finally:
        settings.unlink()


def test_of_two_boots_at_once_that_make_the_machine_one_wins(do, kind, pymachine):
    for _ in range(3):
        command = pymachine.command("boot", "-q", DEBIAN, "-M", WEB)
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = sorted(process.communicate()[1] for process in both)
        assert sorted(process.returncode for process in both) == [0, 1], said
        assert said[0] == ""
        assert said[1].startswith(f"pymachine: Machine '{WEB}' is running already"), said
        do("terminate", WEB)
        do("remove", WEB)


def test_a_plan_makes_nothing(do, kind):
    for _ in range(2):
        planned = do("plan", DEBIAN, "-M", WEB)
        assert (f"mount overlay lowerdir=/var/lib/machines/{DEBIAN}," in planned) == (
            kind != "btrfs"
        )
        assert list(listed(do)) == [DEBIAN]


def test_each_machine_has_an_id_of_its_own(do, sh, kind):
    path = Path(f"/var/lib/machines/{DEBIAN}/etc/machine-id")
    before = path.read_text()
    try:
        path.write_text("0123456789abcdef0123456789abcdef\n")
        do("create", DEBIAN, WEB)
        do("clone", WEB, DB)
        ids = {sh(name, "cat /etc/machine-id") for name in (WEB, DB)}
        assert len(ids) == 2
        assert path.read_text() not in ids
        kept = sh(WEB, "cat /etc/machine-id")
        do("reset", WEB)
        assert sh(WEB, "cat /etc/machine-id") == kept
        do("remove", WEB)
        do("remove", DB)
    finally:
        path.write_text(before)


def test_a_snapshot_is_what_was_and_can_be_gone_back_to(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own; rm -r /usr/share/doc; mkdir /usr/share/doc; mv /etc/apt /etc/apt2")
    assert do("snapshot", WEB, "one") == "one\n"
    sh(WEB, "echo 2 >/own; touch /usr/share/doc/new; rm -r /etc/apt2; mkdir -p /opt/a/b")
    do("snapshot", WEB, "two")
    assert "already" in one_error(pymachine("snapshot", WEB, "two"))
    do("rollback", WEB, "one", "--keep=three")
    assert sh(WEB, "cat /own; ls /usr/share/doc; ls -d /etc/apt2") == "1\n/etc/apt2\n"
    do("rollback", WEB, "two")
    assert sh(WEB, "cat /own; ls /usr/share/doc /opt") == "2\n/opt:\na\n\n/usr/share/doc:\nnew\n"
    do("reset", WEB, "--keep=four")
    assert sh(WEB, "ls -d /own /etc/apt /etc/apt2 2>/dev/null; true") == "/etc/apt\n"
    do("rollback", WEB, "four")
    assert sh(WEB, "cat /own") == "2\n"
    rows = json.loads(do("snapshots", WEB, "--json=short"))
    assert [row["tag"] for row in rows] == ["one", "two", "three", "four"]
    do("remove", f"{WEB}@one")
    do("create", f"{WEB}@three", DB)
    do("remove", f"{WEB}@three")
    assert sh(DB, "cat /own") == "2\n"
    assert "no snapshot 'one'" in one_error(pymachine("rollback", WEB, "one"))


def test_what_differs_is_told(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    assert do("diff", WEB) in ("", "~ /etc/machine-id\n")
    sh(
        WEB,
        "echo 1 >/own; rm -r /usr/share/doc; mv /etc/apt /etc/apt2; chmod 700 /srv;"
        " cp -a /etc/fstab /x; cat /x >/etc/fstab; rm /x; echo >>/etc/passwd; mkdir -p /opt/a/b;"
        " rm -r /usr/share/man; mkdir /usr/share/man; touch /usr/share/man/own",
    )
    lines = do("diff", WEB).splitlines()
    for line in ("+ /own", "- /usr/share/doc", "- /etc/apt", "+ /etc/apt2", "~ /srv"):
        assert line in lines, lines
    assert "~ /etc/fstab" not in lines
    assert {"~ /etc/passwd", "+ /opt/a", "+ /usr/share/man/own"} <= set(lines)
    assert "+ /opt/a/b" not in lines
    do("snapshot", WEB, "one")
    assert do("diff", WEB, "one") == ""
    sh(WEB, "rm /own; touch /etc/apt2/new")
    assert do("diff", WEB, "one") == "+ /etc/apt2/new\n- /own\n"
    found = json.loads(do("diff", WEB, "one", "--json=short"))
    assert found[1] == {"kind": "removed", "path": "/own", "type": "file"}
    one_error(pymachine("diff", DEBIAN))


def test_an_image_that_is_used_in_place_becomes_one_with_its_first_snapshot(do, sh, kind):
    sh(DEBIAN, "echo 1 >/in-place")
    do("snapshot", DEBIAN, "one")
    sh(DEBIAN, "echo 2 >/in-place")
    assert Path(f"/var/lib/machines/{DEBIAN}/in-place").read_text() == "1\n"
    assert do("diff", DEBIAN, "one") == "~ /in-place\n"
    do("rollback", DEBIAN, "one")
    assert sh(DEBIAN, "cat /in-place") == "1\n"
    do("remove", DEBIAN)
    sh(DEBIAN, "rm /in-place")


def test_a_commit_makes_an_image_that_stands_alone(do, sh, kind, pymachine):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own; rm -r /usr/share/doc; mv /etc/apt /etc/apt2; ln /own /own2")
    assert do("commit", WEB, GOLDEN) == f"/var/lib/machines/{GOLDEN}\n"
    do("remove", WEB)
    assert listed(do)[GOLDEN]["ro"] is True
    script = "cat /own; ls -d /usr/share/doc /etc/apt /etc/apt2 2>/dev/null; stat -c %h /own"
    assert sh(GOLDEN, script) == "1\n/etc/apt2\n2\n"
    assert "exists" in one_error(pymachine("commit", GOLDEN, GOLDEN))
    do("remove", GOLDEN)
    do("remove", GOLDEN)


def test_a_machine_is_exported_as_it_is(do, sh, kind, pymachine, tmp_path):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own; rm -r /usr/share/doc")
    do("export-tar", "-q", WEB, tmp_path / f"{WEB}.tar")
    listing = subprocess.run(
        ["tar", "-tf", tmp_path / f"{WEB}.tar"], check=True, capture_output=True, text=True
    )
    names = set(listing.stdout.splitlines())
    assert {"./own", "./etc/os-release"} <= names
    assert "./usr/share/doc/" not in names
    assert "no disk image" in one_error(pymachine("export-raw", "-q", WEB, tmp_path / f"{WEB}.raw"))


def test_what_is_changed_of_the_root_directory_itself_is_in_a_snapshot(do, sh, kind):
    do("create", DEBIAN, WEB)
    sh(WEB, "chmod 0711 /; chown 5:6 /")
    do("snapshot", WEB, "one")
    sh(WEB, "chmod 0755 /; chown 0:0 /")
    do("rollback", WEB, "one")
    assert sh(WEB, "stat -c '%a %u %g' /") == "711 5 6\n"
    do("clone", WEB, DB)
    assert sh(DB, "stat -c '%a %u %g' /") == "711 5 6\n"


def test_a_machine_that_runs_is_frozen_for_a_snapshot(do, sh, kind, pymachine):
    do("boot", DEBIAN, "-M", WEB)
    do("exec", WEB, "--", "sh", "-c", "echo 1 >/own; sync")
    assert "running" in one_error(pymachine("snapshot", WEB, "one"))
    do("snapshot", "--running", WEB, "one")
    do("exec", WEB, "--", "sh", "-c", "echo 2 >/own")
    for _ in range(3):
        do("snapshot", "--running", "--keep=2", WEB)
        time.sleep(1)
    rows = json.loads(do("snapshots", WEB, "--json=short"))
    assert len(rows) == 3
    assert rows[0]["tag"] == "one"
    assert all(row["running"] for row in rows)
    assert do("exec", WEB, "--", "systemctl", "is-system-running", "--wait") == "running\n"
    do("poweroff", WEB)
    do("rollback", WEB, "one")
    assert sh(WEB, "cat /own") == "1\n"
    do("rollback", WEB, rows[1]["tag"])
    assert sh(WEB, "cat /own") == "2\n"
    do("boot", WEB)


def test_a_killed_snapshot_leaves_the_machine_running(do, kind, pymachine):
    do("boot", DEBIAN, "-M", WEB)
    do("exec", WEB, "--", "dd", "if=/dev/zero", "of=/large", "bs=1M", "count=100", "status=none")
    cgroup = Path(property_of(pymachine, WEB, "CGroup"), "payload/cgroup.freeze")

    def killed_while_frozen(tag):
        process = subprocess.Popen(pymachine.command("snapshot", "--running", WEB, tag))
        seen = False
        while process.poll() is None and not seen:
            seen = cgroup.read_text() == "1\n"
        process.kill()
        process.wait()
        return seen

    # A snapshot may take a few milliseconds, which a busy host may have us sleep through.
    assert any(killed_while_frozen(f"try-{number}") for number in range(20))
    wait_for(lambda: cgroup.read_text() == "0\n")
    assert do("exec", WEB, "--", "echo", "on") == "on\n"


def test_wrong_words_are_told_in_one_line(do, kind, pymachine):
    do("create", DEBIAN, WEB)
    assert "exists already" in one_error(pymachine("create", DEBIAN, WEB))
    assert DEBIAN in one_error(pymachine("create", WEB, DEBIAN))
    assert "no image 'nothing'" in one_error(pymachine("create", "nothing", DB))
    assert "no valid" in one_error(pymachine("create", DEBIAN, "a/b"))
    assert "tag" in one_error(pymachine("snapshot", WEB, "../x"))
    assert "no snapshot 'x'" in one_error(pymachine("create", f"{WEB}@x", DB))
    assert "no image 'nothing'" in one_error(pymachine("rollback", "nothing", "x"))
    assert "is an image, and no machine" in one_error(pymachine("reset", DEBIAN))  # not of it
