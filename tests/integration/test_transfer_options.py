"""What becomes of an image: in the place of another, read-only, with what lies beside it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.images.store import is_read_only
from machinectl_py.kernel.locks import drop_lock, take_lock
from tests.integration import pools
from tests.integration.transfers import CACHE, MACHINES, own_cache, signing
from tests.integration.webserver import serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
POINTS = 20
SEED = random.randrange(1 << 32)
HASHES = (".roothash", ".roothash.p7s", ".verity")


@pytest.fixture
def kind():
    """The file system of the store, where it does not matter."""
    return "tmpfs"


@pytest.fixture(autouse=True)
def store(kind):
    with own_cache(), pools.pool(kind):
        yield


on_each = pytest.mark.parametrize("kind", pools.KINDS)


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with signing(tmp_path_factory.mktemp("gnupg") / "home") as gpg:
        yield gpg


@pytest.fixture
def web(tmp_path):
    with serving(tmp_path) as server:
        yield server


def archive(path, content, files=1):
    """Write an archive of files that all have this content."""
    tree = path.parent / f"tree-{content}"
    (tree / "etc").mkdir(parents=True, exist_ok=True)
    (tree / "etc/os-release").write_text(f"ID={content}\n")
    for number in range(files):
        (tree / f"{number}").write_text(content)
    subprocess.run(["tar", "-C", tree, "-cf", path, "."], check=True)
    shutil.rmtree(tree)
    return path


def disk(path, content):
    path.write_bytes(content.encode() * 1000)
    return path


def sums(root, *names, gpg=None):
    text = "".join(
        f"{hashlib.sha256((root / name).read_bytes()).hexdigest()} *{name}\n" for name in names
    ).encode()
    (root / "SHA256SUMS").write_bytes(text)
    if gpg:
        signature = gpg("-u", "us@example.org", "--detach-sign", data=text)
        (root / "SHA256SUMS.gpg").write_bytes(signature)


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0]


def release():
    return (MACHINES / "web/etc/os-release").read_text()


@on_each
def test_an_image_is_replaced_only_if_told(pymachine, tmp_path):
    pymachine("import-tar", archive(tmp_path / "a.tar", "old"), "web", check=True)
    new = archive(tmp_path / "b.tar", "new")
    assert_refused(pymachine("import-tar", new, "web"), "exists already")
    assert release() == "ID=old\n"
    pymachine("import-tar", new, "web", "--force", check=True)
    assert release() == "ID=new\n"
    assert os.listdir(MACHINES) == ["web"]
    pymachine("import-tar", new, "other", "--force", check=True)  # where there is nothing, too
    assert sorted(os.listdir(MACHINES)) == ["other", "web"]


def test_a_failure_leaves_what_was_to_be_replaced(pymachine, tmp_path):
    pymachine("import-tar", archive(tmp_path / "a.tar", "old"), "web", check=True)
    (tmp_path / "b.tar").write_bytes(b"no archive" * 1000)
    assert pymachine("import-tar", tmp_path / "b.tar", "web", "--force").returncode == 1
    assert release() == "ID=old\n"
    assert os.listdir(MACHINES) == ["web"]


@on_each
def test_a_tree_is_replaced_by_a_disk_image_and_back(pymachine, tmp_path):
    tree, raw = archive(tmp_path / "a.tar", "old"), disk(tmp_path / "b.raw", "new")
    pymachine("import-tar", tree, "web", check=True)
    pymachine("import-raw", raw, "web", "--force", check=True)
    assert os.listdir(MACHINES) == ["web.raw"]
    pymachine("import-tar", tree, "web", "--force", check=True)
    assert os.listdir(MACHINES) == ["web"]
    pymachine("import-fs", MACHINES / "web", "copy", "--read-only", check=True)
    pymachine("import-raw", raw, "copy", "--force", check=True)  # one that is read-only, too
    assert sorted(os.listdir(MACHINES)) == ["copy.raw", "web"]


@on_each
def test_what_is_in_use_is_not_replaced(pymachine, tmp_path):
    tree, raw = archive(tmp_path / "a.tar", "old"), disk(tmp_path / "b.raw", "old")
    pymachine("import-tar", tree, "web", check=True)
    pymachine("import-raw", raw, "disk", check=True)
    for lock, name in ((".#web.lck", "web"), (".#disk.raw.lck", "disk")):
        path = f"{MACHINES}/{lock}"
        fd = take_lock(path, shared=True)
        try:
            assert_refused(pymachine("import-tar", tree, name, "--force"), "in use")
        finally:
            drop_lock(path, fd)
    pymachine("create", "web", "stands-on-it", check=True)
    try:
        done = pymachine("import-tar", tree, "web", "--force")
        assert_refused(done, "cannot be replaced: machines stand on it: stands-on-it")
    finally:
        pymachine("remove", "stands-on-it", check=True)
    assert sorted(os.listdir(MACHINES)) == ["disk.raw", "web"]


@on_each
def test_killed_at_any_moment_there_is_the_old_one_or_the_new(pymachine, tmp_path):
    files = 1000
    whole = {f"ID={kind}\n": archive(tmp_path / f"{kind}.tar", kind, files) for kind in ("a", "b")}
    pymachine("import-tar", whole["ID=a\n"], "web", check=True)
    begun = time.monotonic()
    pymachine("import-tar", whole["ID=a\n"], "web", "--force", check=True)
    seconds = time.monotonic() - begun
    chosen, ended = random.Random(SEED), set()
    for number in range(POINTS):
        (other,) = set(whole) - {release()}
        process = subprocess.Popen(
            pymachine.command("import-tar", whole[other], "web", "--force"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds * (number + chosen.random()) / POINTS * 1.1)
        process.kill()
        ended.add(process.wait())
        names = [name for name in os.listdir(MACHINES) if not name.startswith(".")]
        assert names == ["web"], f"seed {SEED}, point {number}"
        kind = release().strip().removeprefix("ID=")
        contents = {(MACHINES / f"web/{n}").read_text() for n in range(files)}
        assert contents == {kind}, f"seed {SEED}, point {number}"
    assert -signal.SIGKILL in ended
    pymachine("import-tar", whole["ID=a\n"], "web", "--force", check=True)
    assert os.listdir(MACHINES) == ["web"]


@on_each
def test_read_only(pymachine, tmp_path):
    tree, raw = archive(tmp_path / "a.tar", "old"), disk(tmp_path / "b.raw", "new")
    pymachine("import-tar", tree, "web", "--read-only", check=True)
    pymachine("import-raw", raw, "disk", "--read-only", check=True)
    assert is_read_only(f"{MACHINES}/web")
    assert is_read_only(f"{MACHINES}/disk.raw")
    listed = json.loads(pymachine("images", "--json=short", check=True).stdout)
    assert {image["name"]: image["ro"] for image in listed} == {"web": True, "disk": True}
    pymachine("remove", "web", "disk", check=True)


@pytest.fixture
def offered(tmp_path):
    """A disk image with all that may lie beside it."""
    disk(tmp_path / "web.raw", "disk")
    for suffix in (".nspawn", *HASHES):
        (tmp_path / f"web{suffix}").write_text(f"[Exec]\n# {suffix}\n")
    return [f"web{suffix}" for suffix in (".raw", ".nspawn", *HASHES)]


def test_what_lies_beside_a_disk_image_comes_along(pymachine, web, tmp_path, offered, signer):
    sums(tmp_path, *offered, gpg=signer)
    command = ("pull-raw", f"{web.url}/web.raw", "other", "--keyring", signer.keyring)
    pymachine(*command, check=True)
    names = [f"other{suffix}" for suffix in (".nspawn", ".raw", *HASHES)]
    assert sorted(os.listdir(MACHINES)) == names
    for suffix in (".nspawn", *HASHES):
        expected = (tmp_path / f"web{suffix}").read_bytes()
        assert (MACHINES / f"other{suffix}").read_bytes() == expected
    # They follow it, and go with it.
    pymachine("rename", "other", "third", check=True)
    assert sorted(os.listdir(MACHINES)) == [name.replace("other", "third") for name in names]
    pymachine("remove", "third", check=True)
    assert os.listdir(MACHINES) == []


def test_each_of_them_can_be_left(pymachine, web, tmp_path, offered):
    sums(tmp_path, *offered)
    words = ["settings", "roothash", "roothash-signature", "verity"]
    for word, suffix in zip(words, (".nspawn", *HASHES), strict=True):
        command = ("pull-raw", f"{web.url}/web.raw", "--verify=checksum", f"--{word}=no", "--force")
        pymachine(*command, check=True)
        left = {f"web{other}" for other in HASHES if other != suffix}
        if word == "roothash":  # without it the others mean nothing
            left -= {"web.verity"}
        assert left == {name for name in os.listdir(MACHINES) if "hash" in name or "ver" in name}
        assert (MACHINES / "web.nspawn").exists() == (word != "settings")
    done = pymachine("pull-raw", f"{web.url}/web.raw", "--settings=perhaps")
    assert (done.returncode, done.stdout) == (2, "")


def test_of_an_archive_only_the_settings_come_along(pymachine, web, tmp_path):
    archive(tmp_path / "web.tar", "new")
    (tmp_path / "web.nspawn").write_text("[Exec]\nBoot=yes\n")
    (tmp_path / "web.roothash").write_text("no")
    sums(tmp_path, "web.tar", "web.nspawn")
    pymachine("pull-tar", f"{web.url}/web.tar", "--verify=checksum", check=True)
    assert sorted(os.listdir(MACHINES)) == ["web", "web.nspawn"]


@pytest.mark.parametrize("suffix", [".nspawn", *HASHES])
def test_what_is_tampered_with_or_not_vouched_for_is_refused(
    pymachine, web, tmp_path, offered, signer, suffix
):
    command = ("pull-raw", f"{web.url}/web.raw", "--keyring", signer.keyring)
    sums(tmp_path, *offered, gpg=signer)
    (tmp_path / f"web{suffix}").write_text("worse")
    assert_refused(pymachine(*command), f"The checksum of {web.url}/web{suffix} is wrong")
    assert os.listdir(MACHINES) == []
    sums(tmp_path, *[name for name in offered if name != f"web{suffix}"], gpg=signer)
    assert_refused(pymachine(*command), "has its checksum")
    assert os.listdir(MACHINES) == []


def test_settings_that_are_there_stay_unless_told(pymachine, web, tmp_path, offered):
    sums(tmp_path, *offered)
    command = ("pull-raw", f"{web.url}/web.raw", "--verify=checksum")
    (MACHINES / "web.nspawn").write_text("mine")
    done = pymachine(*command, check=True)
    assert f"warning: {MACHINES}/web.nspawn was there already" in done.stderr
    assert (MACHINES / "web.nspawn").read_text() == "mine"
    pymachine(*command, "--force", check=True)
    assert (MACHINES / "web.nspawn").read_bytes() == (tmp_path / "web.nspawn").read_bytes()
    # What the new one does not have and would make it useless goes; settings stay.
    for suffix in (".nspawn", *HASHES):
        (tmp_path / f"web{suffix}").unlink()
    pymachine(*command, "--force", check=True)
    assert sorted(os.listdir(MACHINES)) == ["web.nspawn", "web.raw"]


def test_a_kept_download_is_asked_for_and_not_loaded_again(pymachine, web, tmp_path):
    disk(tmp_path / "web.raw", "first")
    command = ("pull-raw", f"{web.url}/web.raw", "--verify=no", "--force")
    kept = CACHE / "downloads"

    def bodies():
        found = [status for path, _, status in web.asked if path == "/web.raw"]
        web.asked.clear()
        return found

    pymachine(*command, "--keep-download=yes", check=True)
    assert bodies() == [200]
    pymachine(*command, check=True)
    assert bodies() == [416]  # there is no rest of it
    disk(tmp_path / "web.raw", "second")
    pymachine(*command, check=True)
    assert bodies() == [200]
    assert (MACHINES / "web.raw").read_bytes() == (tmp_path / "web.raw").read_bytes()
    assert os.listdir(kept) != []
    done = pymachine("clean", check=True)
    assert done.stdout == f"{web.url}/web.raw\n"
    assert os.listdir(kept) == []
    pymachine(*command, "--keep-download=yes", check=True)
    pymachine(*command, "--keep-download=no", check=True)
    assert os.listdir(kept) == []


class Slow:
    """An import that waits for more, as long as the block lasts."""

    def __init__(self, pymachine, name):
        words = pymachine.command("import-raw", "-", name)
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.process.stdin.write(b"x" * 100000)
        self.process.stdin.flush()

    def __enter__(self):
        return self.process

    def __exit__(self, *_error):
        self.process.kill()
        self.process.communicate()


def listed(pymachine, count):
    deadline = time.monotonic() + 10
    while True:
        found = json.loads(pymachine("list-transfers", "--json=short", check=True).stdout)
        if len(found) == count and all(one["phase"] for one in found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_transfers_are_listed_and_cancelled(pymachine):
    assert pymachine("list-transfers", check=True).stdout == "No transfers.\n"
    with Slow(pymachine, "a") as first, Slow(pymachine, "b") as second:
        found = {one["local"]: one for one in listed(pymachine, 2)}
        assert {name: one["id"] for name, one in found.items()} == {
            "a": first.pid,
            "b": second.pid,
        }
        assert found["a"]["type"] == "import-raw"
        assert found["a"]["remote"] == "-"
        lines = pymachine("list-transfers", check=True).stdout.splitlines()
        assert lines[0].split() == ["ID", "PERCENT", "TYPE", "LOCAL", "REMOTE", "PHASE"]
        assert lines[-1] == "2 transfers listed."
        pymachine("cancel-transfer", str(found["a"]["id"]), check=True)
        assert first.wait(1) == 1
        assert "Interrupted by SIGTERM" in first.stderr.read().decode()
        assert [one["local"] for one in listed(pymachine, 1)] == ["b"]
        assert not [name for name in os.listdir(MACHINES) if name.startswith(".#a")]
        assert_refused(
            pymachine("cancel-transfer", str(found["a"]["id"])),
            f"There is no transfer {found['a']['id']}",
        )
    assert pymachine("cancel-transfer", "one").returncode == 2
    assert listed(pymachine, 0) == []


def test_of_a_killed_transfer_nothing_stays_listed(pymachine):
    with Slow(pymachine, "a"):
        listed(pymachine, 1)
    assert listed(pymachine, 0) == []
    assert list(Path("/run/pymachine/transfers").glob("*.json*")) == []
    pymachine("fsck", check=True)


def test_a_download_tells_how_far_it_is_and_nobodys_password(pymachine, web, tmp_path):
    (tmp_path / "web.raw").write_bytes(os.urandom(1 << 20))
    web.breaks = [1 << 19] * 50
    web.tagged = False  # so that it begins anew each time
    url = f"{web.url}/web.raw".replace("http://", "http://me:secret@")
    process = subprocess.Popen(
        pymachine.command("pull-raw", url, "--verify=no"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            (found,) = listed(pymachine, 1)
            assert found["remote"] == f"{web.url}/web.raw"
            if found["progress"] == 0.5:
                break
            assert time.monotonic() < deadline, found
    finally:
        process.terminate()
        process.wait()
