"""Machines that are made of disk images: files that share their extents, or layers over them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration import disks, pools
from tests.integration.test_boot import one_error, property_of
from tests.integration.test_machines_of_images import STORE, listed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not disks.have("mke2fs", "sfdisk"), reason="needs mke2fs and sfdisk"),
]
IMAGE = Path("/var/lib/machines/debian.raw")


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
    do("create", "debian", "web")
    assert blocks() - before < 20
    assert listed(do)["web*"]["driver"] == ("reflink" if pool == "xfs" else "overlay")
    ids = sh("web", "echo 1 >/own; rm -r /usr/share/doc; cat /proc/self/uid_map").split()
    assert ids[2] == "65536"
    do("clone", "web", "db")
    assert sh("db", "cat /own; ls -d /usr/share/doc 2>/dev/null; true") == "1\n"
    assert "web" in one_error(pymachine("remove", "debian"))
    assert "ls: " in pymachine("run", "debian", "--", "ls", "/own").stderr
    assert listed(do)["debian*"]["from"] == "debian"


def test_snapshots_are_gone_back_to(do, sh):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    do("snapshot", "web", "one")
    sh("web", "echo 2 >/own; rm -r /usr/share/doc")
    assert "- /usr/share/doc\n" in do("diff", "web", "one")
    assert "~ /own\n" in do("diff", "web", "one")
    assert "+ /own\n" in do("diff", "web")
    do("rollback", "web", "one", "--keep=two")
    assert sh("web", "cat /own; ls -d /usr/share/doc") == "1\n/usr/share/doc\n"
    do("reset", "web")
    assert sh("web", "ls -d /own /usr/share/doc 2>/dev/null; true") == "/usr/share/doc\n"
    do("rollback", "web", "two")
    assert sh("web", "cat /own") == "2\n"


def test_a_machine_that_runs_is_frozen_for_a_snapshot(do, sh, pymachine):
    do("boot", "debian", "-M", "web")
    do("exec", "web", "--", "sh", "-c", "echo 1 >/own")
    do("snapshot", "--running", "web", "one")
    do("exec", "web", "--", "sh", "-c", "echo 2 >/own")
    assert property_of(pymachine, "web", "Image") == "debian"
    do("poweroff", "web")
    do("rollback", "web", "one")
    assert sh("web", "cat /own") == "1\n"


def test_an_ephemeral_machine_takes_no_room(do, sh):
    before = blocks()
    script = "echo 1 >/own; cat /own"
    assert do("run", "debian", "--ephemeral", "--", "/bin/sh", "-c", script) == "1\n"
    assert blocks() - before < 20
    assert list(listed(do)) == ["debian"]


def test_each_machine_has_an_id_of_its_own(do, sh):
    sh("debian", "echo 0123456789abcdef0123456789abcdef >/etc/machine-id")
    do("create", "debian", "web")
    do("create", "debian", "db")
    ids = {sh(name, "cat /etc/machine-id") for name in ("web", "db")}
    assert len(ids) == 2
    assert "0123456789abcdef0123456789abcdef\n" not in ids
    do("remove", "web")
    do("remove", "db")
    sh("debian", ": >/etc/machine-id")


def test_a_commit_makes_an_image(do, sh, pool):
    do("create", "debian", "web")
    sh("web", "echo 1 >/own")
    path = do("commit", "web", "golden").strip()
    assert path == "/var/lib/machines/golden" + ".raw" * (pool == "xfs")
    do("remove", "web")
    assert sh("golden", "cat /own") == "1\n"
    do("remove", "golden")
    do("remove", "golden")
