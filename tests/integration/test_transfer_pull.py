"""`pull-tar` and `pull-raw`: from a web server, signed, tampered with, and broken off."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.kernel.locks import is_locked
from tests.integration.transfers import (
    CACHE,
    MACHINES,
    make_sparse,
    make_tree,
    own_cache,
    own_store,
    signing,
    snapshot,
)
from tests.integration.webserver import serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")


@pytest.fixture(autouse=True)
def store():
    with own_cache(), own_store() as limit:
        yield limit


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with signing(tmp_path_factory.mktemp("gnupg") / "home") as gpg:
        yield gpg


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A tree, and the archive and disk image that a server has."""
    directory = tmp_path_factory.mktemp("content")
    (directory / "tree").mkdir()
    make_tree(directory / "tree")
    (directory / "tree/blob").write_bytes(os.urandom(3 << 20))
    words = ["tar", "--zstd", "--sparse", "--xattrs", "--xattrs-include=*", "--format=posix"]
    words += ["-C", directory / "tree", "-cf", directory / "web.tar.zst", "."]
    subprocess.run(words, check=True)
    make_sparse(directory / "disk.img")
    subprocess.run(["xz", "-0", "-k", directory / "disk.img"], check=True)
    return directory


@pytest.fixture
def web(tmp_path, content):
    (tmp_path / "web.tar.zst").write_bytes((content / "web.tar.zst").read_bytes())
    with serving(tmp_path) as server:
        yield server


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sums(root, name="web.tar.zst"):
    text = f"{'0' * 64} *other.tar\n{digest(root / name)} *{name}\n".encode()
    (root / "SHA256SUMS").write_bytes(text)
    return text


def asked(web, name="web.tar.zst"):
    """Return what was asked of the file itself, not of what may lie beside it."""
    return [one for one in web.asked if one[0] == f"/{name}"]


def cached():
    directory = CACHE / "downloads"
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0]
    assert "Traceback" not in done.stderr
    assert os.listdir(MACHINES) == []


def assert_pulled(done, content):
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/web\n"), done.stderr
    assert os.listdir(MACHINES) == ["web"]
    assert snapshot(MACHINES / "web") == snapshot(content / "tree")
    assert cached() == []


def test_a_signed_list_of_checksums(pymachine, web, content, signer, tmp_path):
    text = sums(tmp_path)
    for suffix, armor in ((".gpg", ()), (".asc", ("--armor",))):
        signature = signer("-u", "us@example.org", *armor, "--detach-sign", data=text)
        (tmp_path / f"SHA256SUMS{suffix}").write_bytes(signature)
        for ring in (signer.keyring, signer.armored):
            done = pymachine("pull-tar", f"{web.url}/web.tar.zst", "--keyring", ring)
            assert_pulled(done, content)
            subprocess.run(["rm", "-rf", MACHINES / "web"], check=True)
        (tmp_path / f"SHA256SUMS{suffix}").unlink()


@pytest.mark.parametrize("form", ["detached", "in itself"])
def test_a_signed_checksum_of_the_file_alone(pymachine, web, content, signer, tmp_path, form):
    text = f"{digest(tmp_path / 'web.tar.zst')}  web.tar.zst\n".encode()
    beside = tmp_path / "web.tar.zst.sha256"
    if form == "detached":
        beside.write_bytes(text)
        signature = signer("-u", "us@example.org", "--detach-sign", data=text)
        Path(f"{beside}.gpg").write_bytes(signature)
    else:
        beside.write_bytes(signer("-u", "us@example.org", "--clearsign", data=text))
    done = pymachine("pull-tar", f"{web.url}/web.tar.zst", "--keyring", signer.keyring)
    assert_pulled(done, content)


def test_checksums_alone_and_none(pymachine, web, content, tmp_path):
    url = f"{web.url}/web.tar.zst"
    assert_refused(pymachine("pull-tar", url, "--verify=checksum"), "has its checksum")
    sums(tmp_path)
    assert_pulled(pymachine("pull-tar", url, "--verify=checksum"), content)
    subprocess.run(["rm", "-rf", MACHINES / "web"], check=True)
    web.asked.clear()
    assert_pulled(pymachine("pull-tar", url, "--verify=no"), content)
    assert sorted(path for path, _, _ in web.asked) == ["/web.nspawn", "/web.tar.zst"]


def test_what_was_tampered_with_is_refused_before_it_is_unpacked(pymachine, web, signer, tmp_path):
    text = sums(tmp_path)
    signature = signer("-u", "us@example.org", "--detach-sign", data=text)
    (tmp_path / "SHA256SUMS.gpg").write_bytes(signature)
    command = ("pull-tar", f"{web.url}/web.tar.zst", "--keyring", signer.keyring)

    (tmp_path / "web.tar.zst").write_bytes(b"not even an archive" * 100)
    assert_refused(pymachine(*command), "The checksum of")
    assert cached() == []

    web.asked.clear()
    sums(tmp_path)  # the list is made to fit
    assert_refused(pymachine(*command), "not good: it is of other data")
    assert "/web.tar.zst" not in [path for path, _, _ in web.asked]

    signature = signer("-u", "others@example.org", "--detach-sign", data=sums(tmp_path))
    (tmp_path / "SHA256SUMS.gpg").write_bytes(signature)
    assert_refused(pymachine(*command), "the signer's key is not in the keyring")

    (tmp_path / "SHA256SUMS.gpg").write_bytes(b"nonsense")
    assert_refused(pymachine(*command), "The signature of the checksums is not good")

    (tmp_path / "SHA256SUMS.gpg").unlink()
    assert_refused(pymachine(*command), "is not signed")


def test_what_stands_around_a_signed_text_counts_for_nothing(pymachine, web, signer, tmp_path):
    signed = signer("-u", "us@example.org", "--clearsign", data=b"0" * 64 + b"  web.tar.zst\n")
    line = f"{digest(tmp_path / 'web.tar.zst')}  web.tar.zst\n".encode()
    for text in (line + signed, signed + line, signed + b"\n" + line + signed):
        (tmp_path / "web.tar.zst.sha256").write_bytes(text)
        done = pymachine("pull-tar", f"{web.url}/web.tar.zst", "--keyring", signer.keyring)
        assert done.returncode == 1, text
        assert os.listdir(MACHINES) == []


def test_a_signature_of_an_expired_key_is_refused(pymachine, web, signer, tmp_path):
    signer(
        *("--faked-system-time", "20200101T000000"),
        *("--quick-generate-key", "old@example.org", "ed25519", "sign", "1d"),
    )
    text = sums(tmp_path)
    when = ("--faked-system-time", "20200101T010000")
    signature = signer(*when, "-u", "old@example.org", "--detach-sign", data=text)
    (tmp_path / "SHA256SUMS.gpg").write_bytes(signature)
    ring = tmp_path / "old.gpg"
    ring.write_bytes(signer("--export", "old@example.org"))
    done = pymachine("pull-tar", f"{web.url}/web.tar.zst", "--keyring", ring)
    assert_refused(done, "has expired")


def test_a_download_that_breaks_off_goes_on(pymachine, web, content):
    web.breaks = [100_000, 1_000_000, 5]
    done = pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no")
    assert_pulled(done, content)
    ranges = [(wanted, status) for _, wanted, status in asked(web)]
    assert ranges[:2] == [("", 200), ("bytes=100000-", 206)]
    assert len(ranges) == 4
    assert all(status == 206 for _, status in ranges[1:])


def test_a_part_of_another_version_is_thrown_away(pymachine, web, content, tmp_path):
    newer = (tmp_path / "web.tar.zst").read_bytes()
    (tmp_path / "web.tar.zst").write_bytes(os.urandom(2_000_000))
    killed_at(pymachine, web, 1_000_000)
    assert [name for name in cached() if name.endswith(".json")]
    (tmp_path / "web.tar.zst").write_bytes(newer)
    web.asked.clear()
    assert_pulled(pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"), content)
    assert asked(web) == [("/web.tar.zst", "bytes=1000000-", 200)]


def test_without_a_version_it_begins_anew(pymachine, web, content):
    web.tagged = False
    web.breaks = [100_000]
    assert_pulled(pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"), content)
    assert [wanted for _, wanted, _ in asked(web)] == ["", ""]


def killed_at(pymachine, web, count):
    """Kill a pull that has received so much, and waits for more in vain."""
    web.breaks = [count] + [0] * 100
    process = subprocess.Popen(
        pymachine.command("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while len(asked(web)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    web.breaks = []


def test_the_next_try_takes_up_what_a_killed_one_had(pymachine, web, content):
    killed_at(pymachine, web, 1_500_000)
    web.asked.clear()
    assert_pulled(pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"), content)
    assert asked(web) == [("/web.tar.zst", "bytes=1500000-", 206)]


def test_a_whole_download_is_not_fetched_again_when_the_disk_was_full(
    pymachine, web, content, store
):
    store("2m")
    done = pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no")
    assert_refused(done, "no space left")
    store("500m")
    web.asked.clear()
    assert_pulled(pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"), content)
    assert [status for _, _, status in asked(web)] == [416]


def test_a_server_that_fails_is_told(pymachine, web):
    url = f"{web.url}/web.tar.zst"
    web.broken = {"/web.tar.zst": 403}
    assert_refused(pymachine("pull-tar", url, "--verify=no"), "the server says 403 Forbidden")
    assert_refused(pymachine("pull-tar", f"{web.url}/no.tar", "--verify=no"), "no such file")
    web.broken = {"/SHA256SUMS": 500}
    assert_refused(pymachine("pull-tar", url, "--verify=checksum"), "500 Internal Server Error")
    for url, text in (
        ("http://127.0.0.1:1/x.tar", "Connection refused"),
        ("ftp://127.0.0.1/x.tar", "Cannot download 'ftp:"),
        ("http://127.0.0.1/", "names no file"),
    ):
        assert_refused(pymachine("pull-tar", url, "x", "--verify=no"), text)


def test_a_server_that_is_down_for_a_moment_is_asked_again(pymachine, web, content):
    web.broken = {"/web.tar.zst": 503}
    process = subprocess.Popen(
        pymachine.command("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(asked(web)) < 2:
        time.sleep(0.01)
    web.broken = {}
    output, error = process.communicate(timeout=30)
    assert_pulled(subprocess.CompletedProcess((), process.returncode, output, error), content)


def test_redirections_are_followed(pymachine, web, content):
    web.moved = {"/old/web.tar.zst": "/web.tar.zst"}
    assert_pulled(pymachine("pull-tar", f"{web.url}/old/web.tar.zst", "--verify=no"), content)


def test_a_file_url_is_as_good(pymachine, content, signer, tmp_path):
    (tmp_path / "web.tar.zst").write_bytes((content / "web.tar.zst").read_bytes())
    sums(tmp_path)
    url = f"file://{tmp_path}/web.tar.zst"
    assert_refused(pymachine("pull-tar", url, "--keyring", signer.keyring), "is not signed")
    assert_pulled(pymachine("pull-tar", url, "--verify=checksum"), content)


def test_a_disk_image(pymachine, web, content, signer, tmp_path):
    (tmp_path / "disk.img.xz").write_bytes((content / "disk.img.xz").read_bytes())
    text = sums(tmp_path, "disk.img.xz")
    signature = signer("-u", "us@example.org", "--detach-sign", data=text)
    (tmp_path / "SHA256SUMS.gpg").write_bytes(signature)
    done = pymachine("pull-raw", f"{web.url}/disk.img.xz", "--keyring", signer.keyring)
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/disk.raw\n"), done.stderr
    assert (MACHINES / "disk.raw").read_bytes() == (content / "disk.img").read_bytes()


def test_pull_knows_by_the_name_what_it_gets(pymachine, web, content, tmp_path):
    done = pymachine("pull", f"{web.url}/web.tar.zst", "--verify=no")
    assert_pulled(done, content)
    (tmp_path / "disk.img.xz").write_bytes((content / "disk.img.xz").read_bytes())
    done = pymachine("pull", f"{web.url}/disk.img.xz", "--verify=no", "--name=other")
    assert done.stdout == f"{MACHINES}/other.raw\n"
    done = pymachine("pull", f"{web.url}/disk.bin", "--verify=no")
    assert done.returncode == 2
    assert "'pymachine pull-tar' and 'pymachine pull-raw' say so" in done.stderr


def test_a_pull_that_is_killed_at_any_moment_leaves_a_whole_store(pymachine, web, content):
    command = pymachine.command("pull-tar", f"{web.url}/web.tar.zst", "--verify=no")
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole, seed = time.monotonic() - begun, random.randrange(1 << 32)
    expected, chosen = snapshot(MACHINES / "web"), random.Random(seed)
    for number in range(20):
        subprocess.run(["rm", "-rf", MACHINES / "web"], check=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(whole * (number + chosen.random()) / 20)
        process.kill()
        process.communicate()
        while is_locked(f"{MACHINES}/.#web.lck"):
            time.sleep(0.005)
        if "web" in os.listdir(MACHINES):
            assert snapshot(MACHINES / "web") == expected, f"seed {seed}"
    subprocess.run(["rm", "-rf", MACHINES / "web"], check=True)
    assert_pulled(pymachine("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"), content)


def test_a_full_disk_at_any_moment_leaves_no_image(pymachine, web, content, store):
    command = ("pull-tar", f"{web.url}/web.tar.zst", "--verify=no")
    seed = random.randrange(1 << 32)
    chosen, size = random.Random(seed), (content / "web.tar.zst").stat().st_size
    for number in range(20):
        part = int(size * (number + chosen.random()) / 20)
        subprocess.run(["mount", "-o", f"remount,size={max(part, 8192)}", CACHE], check=True)
        assert_refused(pymachine(*command), "no space left")
    subprocess.run(["mount", "-o", "remount,size=500m", CACHE], check=True)
    for number in range(20):
        part = int(size * (number + chosen.random()) / 20)
        store(max(part, 8192))
        done = pymachine(*command)
        assert done.returncode == 1, f"seed {seed}, {part} bytes"
        assert_refused(done, "no space left")
    store("500m")
    assert_pulled(pymachine(*command), content)


def test_a_disk_that_is_full_is_not_tried_again(pymachine, web, tmp_path):
    """One so small that there is no reserve, so that the last byte is taken."""
    (tmp_path / "zero.raw").write_bytes(bytes(1 << 20))
    subprocess.run(["mount", "-o", "remount,size=64k", CACHE], check=True)
    done = pymachine("pull-raw", f"{web.url}/zero.raw", "--verify=no")
    assert_refused(done, "no space left")
    assert len(asked(web, "zero.raw")) == 1


def test_a_download_without_an_image_serves_the_next_pull(
    pymachine, web, content, signer, tmp_path
):
    signature = signer("-u", "us@example.org", "--detach-sign", data=sums(tmp_path))
    (tmp_path / "SHA256SUMS.gpg").write_bytes(signature)
    url, keyring = f"{web.url}/web.tar.zst", f"--keyring={signer.keyring}"
    done = pymachine("pull-tar", url, "-", keyring)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == (content / "web.tar.zst").read_bytes()
    assert os.listdir(MACHINES) == []
    assert pymachine("list-transfers", "--no-legend").stdout == ""
    web.asked.clear()
    done = pymachine("pull-tar", url, keyring)
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/web\n"), done.stderr
    assert snapshot(MACHINES / "web") == snapshot(content / "tree")
    assert [status for _, _, status in asked(web)] == [416]
    assert pymachine("clean").returncode == 0
    assert cached() == []


def test_a_download_without_an_image_is_verified_too(pymachine, web, content, signer, tmp_path):
    signature = signer("-u", "us@example.org", "--detach-sign", data=sums(tmp_path))
    (tmp_path / "SHA256SUMS.gpg").write_bytes(signature)
    (tmp_path / "web.tar.zst").write_bytes(os.urandom(100_000))
    url, keyring = f"{web.url}/web.tar.zst", f"--keyring={signer.keyring}"
    assert_refused(pymachine("pull-tar", url, "-", keyring), "tampered with, or damaged")
    assert cached() == []
    for option in ("--force", "--read-only", "--settings=no", "--keep-download=no"):
        done = pymachine("pull-raw", url, "-", "--verify=no", option)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr


def test_an_interrupted_download_stops_at_once(pymachine, web):
    web.breaks = [100_000] + [0] * 100
    process = subprocess.Popen(
        pymachine.command("pull-tar", f"{web.url}/web.tar.zst", "--verify=no"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(asked(web)) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "Interrupted by SIGINT" in error
    assert os.listdir(MACHINES) == []
