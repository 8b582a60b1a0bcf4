"""Machines that are made of disk images: files that share their extents, or layers over them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration import disks, pools
from tests.integration.pools import DB, DEBIAN, GOLDEN, WEB
from tests.integration.test_boot import one_error, property_of
from tests.integration.test_machines_of_images import STORE, listed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
IMAGE = Path(f"/var/lib/machines/{DEBIAN}.raw")


@pytest.fixture(scope="module", params=["ext4", "xfs"])
def pool(request, pristine_tree, tmp_path_factory):
    """A file system with the image `debian`, a disk; says its kind."""
    try:
        with pools.pool(request.param, megabytes=3000):
            part = tmp_path_factory.mktemp("disk") / "part"
            disks.disk(IMAGE, ("root", disks.file_system("ext4", pristine_tree, part, "400M")))
            part.unlink()
            yield request.param
    except pools.NoLoops as error:
        pytest.skip(str(error))


@pytest.fixture
def do(pymachine, pool):
    """Run a verb that has to succeed; return what it prints. At the end all machines go."""

    def run(*words):
        done = pymachine(*words)
        assert done.returncode == 0, (words, done)
        return done.stdout

    yield run
    for machine in json.loads(pymachine("images", "--json=short").stdout):
        if machine["driver"]:
            if os.path.exists(f"/run/pymachine/machines/{machine['name']}"):
                pymachine("terminate", machine["name"])
            assert pymachine("remove", machine["name"]).returncode == 0
    for place in ("machines", "layers", "tmp"):
        assert os.listdir(STORE / place) == []
    assert os.listdir(IMAGE.parent) == [IMAGE.name]


@pytest.fixture
def sh(do):
    """Run a shell in a machine; return what it prints."""
    return lambda machine, script: do("run", machine, "--", "/bin/sh", "-c", script)


def blocks():
    """Return the megabytes in use where the store is."""
    status = os.statvfs(STORE)
    return (status.f_blocks - status.f_bfree) * status.f_bsize >> 20


def test_a_machine_is_its_own_and_takes_no_room(do, sh, pool, pymachine):
    before = blocks()
    do("create", DEBIAN, WEB)
    assert blocks() - before < 20
    assert listed(do)[f"{WEB}*"]["driver"] == ("reflink" if pool == "xfs" else "overlay")
    ids = sh(WEB, "echo 1 >/own; rm -r /usr/share/doc; cat /proc/self/uid_map").split()
    assert ids[2] == "65536"
    do("clone", WEB, DB)
    assert sh(DB, "cat /own; ls -d /usr/share/doc 2>/dev/null; true") == "1\n"
    assert WEB in one_error(pymachine("remove", DEBIAN))
    assert "ls: " in pymachine("run", DEBIAN, "--", "ls", "/own").stderr
    assert listed(do)[f"{DEBIAN}*"]["from"] == DEBIAN


def test_snapshots_are_gone_back_to(do, sh):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    do("snapshot", WEB, "one")
    sh(WEB, "echo 2 >/own; rm -r /usr/share/doc")
    assert "- /usr/share/doc\n" in do("diff", WEB, "one")
    assert "~ /own\n" in do("diff", WEB, "one")
    assert "+ /own\n" in do("diff", WEB)
    do("rollback", WEB, "one", "--keep=two")
    assert sh(WEB, "cat /own; ls -d /usr/share/doc") == "1\n/usr/share/doc\n"
    do("reset", WEB)
    assert sh(WEB, "ls -d /own /usr/share/doc 2>/dev/null; true") == "/usr/share/doc\n"
    do("rollback", WEB, "two")
    assert sh(WEB, "cat /own") == "2\n"


def test_a_machine_that_runs_is_frozen_for_a_snapshot(do, sh, pymachine):
    do("boot", DEBIAN, "-M", WEB)
    do("exec", WEB, "--", "sh", "-c", "echo 1 >/own")
    do("snapshot", "--running", WEB, "one")
    do("exec", WEB, "--", "sh", "-c", "echo 2 >/own")
    assert property_of(pymachine, WEB, "Image") == DEBIAN
    do("poweroff", WEB)
    do("rollback", WEB, "one")
    assert sh(WEB, "cat /own") == "1\n"


def test_an_ephemeral_machine_takes_no_room(do, sh):
    before = blocks()
    script = "echo 1 >/own; cat /own"
    assert do("run", DEBIAN, "--ephemeral", "--", "/bin/sh", "-c", script) == "1\n"
    assert blocks() - before < 20
    assert list(listed(do)) == [DEBIAN]


def test_each_machine_has_an_id_of_its_own(do, sh):
    sh(DEBIAN, "echo 0123456789abcdef0123456789abcdef >/etc/machine-id")
    do("create", DEBIAN, WEB)
    do("create", DEBIAN, DB)
    ids = {sh(name, "cat /etc/machine-id") for name in (WEB, DB)}
    assert len(ids) == 2
    assert "0123456789abcdef0123456789abcdef\n" not in ids
    do("remove", WEB)
    do("remove", DB)
    sh(DEBIAN, ": >/etc/machine-id")


def test_a_commit_makes_an_image(do, sh, pool):
    do("create", DEBIAN, WEB)
    sh(WEB, "echo 1 >/own")
    path = do("commit", WEB, GOLDEN).strip()
    assert path == f"/var/lib/machines/{GOLDEN}" + ".raw" * (pool == "xfs")
    do("remove", WEB)
    assert sh(GOLDEN, "cat /own") == "1\n"
    do("remove", GOLDEN)
    do("remove", GOLDEN)
