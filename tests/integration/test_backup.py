"""`backup`, `backups` and `restore`: deduplicated, whole, with settings, also while it runs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration import pools
from tests.integration.transfers import (
    MACHINES,
    extents,
    make_sparse,
    make_tree,
    own_cache,
    own_store,
    snapshot,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
SETTINGS = Path("/etc/systemd/nspawn")


@pytest.fixture(autouse=True)
def cache():
    with own_cache():
        yield


@pytest.fixture
def store():
    with own_store() as limit:
        yield limit


@pytest.fixture
def sample(store, tmp_path):
    root = tmp_path / "sample"
    root.mkdir()
    make_tree(root)
    subprocess.run(["cp", "--archive", root, MACHINES / "pymtest"], check=True)
    return root


@pytest.fixture
def do(pymachine):
    def run(*words, **keywords):
        done = pymachine(*words, **keywords)
        assert done.returncode == 0, (words, done)
        return done.stdout

    return run


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0]
    assert "Traceback" not in done.stderr


def same(one, other):
    """Compare two trees, but for holes, which borg makes by its own blocks, and links to links."""
    trees = []
    for root in (one, other):
        found, links = snapshot(root)
        for path, (*known, content) in found.items():
            data = content[0] if isinstance(content, tuple) and content else content
            found[path] = (*known, data)
        trees.append((found, links - {frozenset(("etc/mtab", "etc/mtab2"))}))
    return trees[0] == trees[1]


def test_a_tree_comes_back_whole(do, sample, tmp_path):
    repository = tmp_path / "backups"
    version = do("backup", "pymtest", repository).strip()
    assert do("restore", "pymtest", repository, "again") == f"{MACHINES}/again\n"
    assert same(MACHINES / "again", sample)
    assert sorted(os.listdir(MACHINES)) == ["again", "pymtest"]
    listed = json.loads(do("backups", repository, "-j"))
    assert listed == [{"name": "pymtest", "version": version, "kind": "directory"}]
    (MACHINES / "again/etc/more").write_text("more")
    do("restore", "pymtest", repository, "again", "--force")
    assert same(MACHINES / "again", sample)
    assert sorted(os.listdir(MACHINES)) == ["again", "pymtest"]


def test_what_is_there_is_not_stored_again(pymachine, do, sample, tmp_path):
    repository = tmp_path / "backups"
    (MACHINES / "pymtest/blob").write_bytes(os.urandom(8 << 20))
    first = pymachine("backup", "pymtest", repository)
    used = disk_usage(repository)
    time.sleep(1)  # a version tells seconds
    (MACHINES / "pymtest/more").write_text("more")
    second = pymachine("backup", "pymtest", repository)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert disk_usage(repository) - used < 1 << 20
    assert "of which" in second.stderr
    old = first.stdout.strip()
    do("restore", "pymtest", repository, "old", f"--version={old}")
    do("restore", "pymtest", repository, "new")
    assert not (MACHINES / "old/more").exists()
    assert (MACHINES / "new/more").read_text() == "more"
    time.sleep(1)
    do("backup", "pymtest", repository, "--keep=1")
    assert len(json.loads(do("backups", repository, "pymtest", "-j"))) == 1


def disk_usage(path):
    return int(subprocess.check_output(["du", "-sb", path]).split()[0])


def test_a_disk_image_comes_back_with_holes(do, store, tmp_path):
    make_sparse(MACHINES / "disk.raw")
    (MACHINES / "disk.raw").chmod(0o600)
    expected = (MACHINES / "disk.raw").read_bytes()
    (MACHINES / "disk.roothash").write_text("00")  # what is true of this disk goes with it
    do("backup", "disk", tmp_path / "backups")
    for force in ((), ("--force",)):
        done = do("restore", "disk", tmp_path / "backups", "again", *force)
        assert done == f"{MACHINES}/again.raw\n"
        assert (MACHINES / "again.roothash").read_text() == "00"
    do("remove", "again")
    do("remove", "disk")
    assert do("restore", "disk", tmp_path / "backups") == f"{MACHINES}/disk.raw\n"
    assert sorted(os.listdir(MACHINES)) == ["disk.raw", "disk.roothash"]
    assert (MACHINES / "disk.raw").read_bytes() == expected
    assert (MACHINES / "disk.raw").stat().st_blocks * 512 < 30 << 20
    assert extents(MACHINES / "disk.raw")


def test_settings_go_with_it_and_never_over_others(do, sample, tmp_path):
    repository = tmp_path / "backups"
    SETTINGS.mkdir(parents=True, exist_ok=True)
    ours, theirs = SETTINGS / "pymtest.nspawn", SETTINGS / "pymother.nspawn"
    beside = MACHINES / "pymtest.nspawn"
    try:
        ours.write_text("[Exec]\nHostname=first\n")
        beside.write_text("[Exec]\nHostname=beside\n")
        do("backup", "pymtest", repository)
        ours.write_text("[Exec]\nHostname=second\n")
        do("restore", "pymtest", repository, "pymother")
        assert theirs.read_text() == "[Exec]\nHostname=first\n"
        assert (MACHINES / "pymother.nspawn").read_text() == "[Exec]\nHostname=beside\n"
        subprocess.run(["rm", "-rf", MACHINES / "pymtest"], check=True)
        do("restore", "pymtest", repository)
        assert ours.read_text() == "[Exec]\nHostname=second\n"
    finally:
        ours.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)


def test_with_a_passphrase_it_is_encrypted(pymachine, sample, tmp_path):
    repository = tmp_path / "backups"
    (MACHINES / "pymtest/secret.txt").write_text("pymachine secret " * 100)
    known = {"env": os.environ | {"BORG_PASSPHRASE": "right"}}
    wrong = {"env": os.environ | {"BORG_PASSPHRASE": "wrong"}}
    assert pymachine("backup", "pymtest", repository, **known).returncode == 0
    grep = subprocess.run(["grep", "-rq", "pymachine secret", repository], check=False)
    assert grep.returncode == 1
    assert_refused(pymachine("restore", "pymtest", repository, "x", **wrong), "assphrase")
    assert_refused(pymachine("restore", "pymtest", repository, "x"), "borg failed")
    assert pymachine("restore", "pymtest", repository, "x", **known).returncode == 0


def test_what_cannot_be_is_told(pymachine, do, sample, tmp_path):
    repository = tmp_path / "backups"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for words, text in (
        (("backup", "nosuch", repository), "no image 'nosuch'"),
        (("backup", "pymtest", tmp_path / "full"), "neither empty nor"),
        (("restore", "pymtest", tmp_path / "full", "x"), "no directory of backups"),
        (("backups", tmp_path / "none"), "no directory of backups"),
    ):
        assert_refused(pymachine(*words), text)
    do("backup", "pymtest", repository)
    assert_refused(pymachine("restore", "nosuch", repository), "no backup of 'nosuch'")
    done = pymachine("restore", "pymtest", repository, "x", "--version=never")
    assert_refused(done, "no backup of 'pymtest' of never")
    assert_refused(pymachine("restore", "pymtest", repository), "exists already")
    assert os.listdir(MACHINES) == ["pymtest"]


def test_a_killed_backup_or_restore_leaves_all_whole(pymachine, do, sample, tmp_path):
    repository = tmp_path / "backups"
    (MACHINES / "pymtest/blob").write_bytes(os.urandom(20 << 20))
    expected = snapshot(MACHINES / "pymtest")
    seed = random.randrange(1 << 32)
    chosen = random.Random(seed)
    begun = time.monotonic()
    do("backup", "pymtest", repository)
    whole = time.monotonic() - begun
    for number in range(10):
        (MACHINES / "pymtest/blob").write_bytes(os.urandom(20 << 20))
        killed(pymachine.command("backup", "pymtest", repository), whole, number, chosen)
        kill_restore(pymachine, repository, whole, number, chosen)
    time.sleep(1)
    os.utime(MACHINES / "pymtest", ns=(10**18, 10**18))
    expected = snapshot(MACHINES / "pymtest")[0]["blob"][6][0]
    do("backup", "pymtest", repository)
    do("restore", "pymtest", repository, "again")
    assert (MACHINES / "again/blob").read_bytes() == expected, f"seed {seed}"
    assert sorted(os.listdir(MACHINES)) == ["again", "pymtest"]
    base = {"BORG_BASE_DIR": "/var/cache/pymachine/borg", "BORG_REPO": str(repository)}
    base |= {"BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
    base |= {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    subprocess.run(["borg", "check", "--verify-data"], check=True, env=os.environ | base)


def killed(command, whole, number, chosen):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(whole * (number + chosen.random()) / 10)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 5
    while borgs() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not borgs(), "borg outlived the verb"


def kill_restore(pymachine, repository, whole, number, chosen):
    command = pymachine.command("restore", "pymtest", repository, "again")
    killed(command, whole, number, chosen)
    if (MACHINES / "again").exists():
        assert (MACHINES / "again/etc/os-release").exists()
        subprocess.run(["rm", "-rf", MACHINES / "again"], check=True)


def borgs():
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--numeric-ids" in words:
            found.append(entry.name)
    return found


def test_a_full_disk_leaves_the_old_backups(pymachine, do, sample, tmp_path):
    repository = tmp_path / "backups"
    repository.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", repository], check=True)
    try:
        version = do("backup", "pymtest", repository).strip()
        (MACHINES / "pymtest/blob").write_bytes(os.urandom(30 << 20))
        assert pymachine("backup", "pymtest", repository).returncode == 1
        listed = json.loads(do("backups", repository, "-j"))
        assert [backup["version"] for backup in listed] == [version]
        do("restore", "pymtest", repository, "again")
        assert same(MACHINES / "again", sample)
    finally:
        subprocess.run(["umount", repository], check=True)


@pytest.mark.parametrize("kind", pools.KINDS)
def test_a_machine_is_backed_up_while_it_runs(
    pymachine, do, pristine_tree, tmp_path, kind, machine
):
    repository = tmp_path / "backups"
    try:
        with pools.pool(kind):
            pools.put_image(pristine_tree, "debian", kind)
            do("boot", "debian", "-M", machine)
            try:
                do("exec", machine, "--", "sh", "-c", "echo alive >/var/own; sync")
                do("backup", machine, repository)
                assert json.loads(do("snapshots", machine, "-j")) == []
                do("exec", machine, "--", "test", "-e", "/var/own")
            finally:
                do("poweroff", machine)
            do("restore", machine, repository, "back")
            shown = do("run", "back", "--", "cat", "/var/own", "/etc/os-release")
            assert shown.startswith("alive\n")
            assert "Debian" in shown
            do("backup", machine, repository)
            do("remove", machine)
            assert_no_layers()
    except pools.NoLoops as error:
        pytest.skip(str(error))


def assert_no_layers():
    left = [
        p for place in ("machines", "layers") for p in Path("/var/lib/pymachine", place).glob("*")
    ]
    assert left == []


def test_a_machine_that_runs_on_its_image_in_place_says_what_to_do(pymachine, do, tree, machine):
    os.makedirs(MACHINES, exist_ok=True)
    (MACHINES / machine).mkdir()
    subprocess.run(["mount", "--bind", tree, MACHINES / machine], check=True)
    try:
        do("boot", machine)
        done = pymachine("backup", machine, "/tmp/nowhere-backups")
        assert_refused(done, "runs on its image in place")
        do("poweroff", machine)
    finally:
        subprocess.run(["umount", MACHINES / machine], check=True)
        (MACHINES / machine).rmdir()
    assert not os.path.exists("/tmp/nowhere-backups")
