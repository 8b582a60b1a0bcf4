"""`pull REMOTE:IMAGE`: a simplestreams server as that of Linux Containers, on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.transfers import (
    MACHINES,
    make_tree,
    own_cache,
    own_store,
    signing,
    snapshot,
)
from tests.integration.webserver import serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
DROP_IN = Path("/run/pymachine/remotes.conf.d/pymtest.conf")
ARCHITECTURE = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()


@pytest.fixture(autouse=True)
def store():
    with own_cache(), own_store() as limit:
        yield limit


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with signing(tmp_path_factory.mktemp("gnupg") / "home") as gpg:
        yield gpg


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = tmp_path_factory.mktemp("content") / "tree"
    path.mkdir()
    make_tree(path)
    for name in ("etc/os-release", "var/log"):  # squashfs has no ACLs
        subprocess.run(["setfacl", "-bk", path / name], check=True)
    return path


@pytest.fixture
def web(tmp_path):
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def remote(web):
    """Write the configuration of the remote "pymtest"; call it with lines."""

    def configure(*lines):
        DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(("[pymtest]", "Type=simplestreams", f"URL={web.url}", *lines))
        DROP_IN.write_text(f"{text}\n")

    configure("Insecure=yes")
    yield configure
    DROP_IN.unlink()
    DROP_IN.parent.rmdir()


def publish(root, tree, kinds=("root.tar.xz", "squashfs"), version="20240102_05:24"):
    """Make what the server has of one product, in two versions."""
    items = {"incus.tar.xz": {"ftype": "incus.tar.xz", "path": "meta.tar.xz", "sha256": "0" * 64}}
    for kind in kinds:
        path = f"images/debian/12/{version}/{'root.squashfs' if kind == 'squashfs' else kind}"
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if kind == "squashfs":
            words = ["mksquashfs", tree, file, "-xattrs", "-noappend", "-quiet", "-no-progress"]
            words += ["-Xcompression-level", "1"]
        else:
            words = ["tar", "-C", tree, "--xattrs", "--xattrs-include=*", "--format=posix"]
            words += ["--sparse", "--xz", "-cf", file, "."]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        items[kind] = {"ftype": kind, "path": path, "sha256": digest, "size": 1}
    older = {kind: {"ftype": kind, "path": "old", "sha256": "0" * 64} for kind in kinds}
    product = {
        "aliases": "debian/12/default,debian/bookworm/default,debian/12,debian/bookworm",
        "arch": ARCHITECTURE,
        "os": "Debian",
        "versions": {
            "20230101_05:24": {"items": older},
            version: {"items": items},
        },
    }
    other = {**product, "arch": "vax", "versions": {}}
    products = {
        "debian:bookworm:vax:default": other,
        f"debian:bookworm:{ARCHITECTURE}:default": product,
    }
    write(root, products)
    return root / items[kinds[0]]["path"]


def write(root, products):
    streams = root / "streams/v1"
    streams.mkdir(parents=True, exist_ok=True)
    entry = {"datatype": "image-downloads", "path": "streams/v1/images.json"}
    index = {"index": {"images": {**entry, "products": [*products]}}, "format": "index:1.0"}
    (streams / "index.json").write_text(json.dumps(index))
    listed = {"format": "products:1.0", "products": products}
    (streams / "images.json").write_text(json.dumps(listed))


def sign(root, signer, name="us@example.org"):
    for path in (root / "streams/v1").glob("*.json"):
        signed = signer("-u", name, "--clearsign", data=path.read_bytes())
        path.with_suffix(".sjson").write_bytes(signed)


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0]
    assert os.listdir(MACHINES) == []


def assert_pulled(done, tree, name="debian-12"):
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/{name}\n"), done.stderr
    assert snapshot(MACHINES / name) == snapshot(tree)
    subprocess.run(["rm", "-rf", MACHINES / name], check=True)


def coarse(snapshot):
    """Return a snapshot without what squashfs does not keep: parts of seconds, places of holes."""
    found, links = snapshot
    rough = {}
    for path, (*known, when, attributes, content) in found.items():
        data = content[0] if isinstance(content, tuple) and content else content
        rough[path] = (known, when // 10**9, attributes, data)
    return rough, links - {frozenset(("etc/mtab", "etc/mtab2"))}  # nor links to links


def test_a_root_of_squashfs_is_unpacked(pymachine, web, remote, tree, tmp_path):
    publish(tmp_path, tree, ("squashfs",))
    assert pymachine("pull", "pymtest:debian/12").returncode == 0
    assert coarse(snapshot(MACHINES / "debian-12")) == coarse(snapshot(tree))


def test_an_image_comes_by_its_alias(pymachine, web, remote, tree, tmp_path):
    publish(tmp_path, tree)
    assert_pulled(pymachine("pull", "pymtest:debian/12"), tree)
    done = pymachine("pull", "pymtest:debian/bookworm/default", "--name=web")
    assert_pulled(done, tree, "web")
    product = f"pymtest:debian:bookworm:{ARCHITECTURE}:default"
    assert_pulled(pymachine("pull", product, "--name=web"), tree, "web")


def test_an_unknown_image_is_told_with_those_that_are_near(pymachine, remote, tree, tmp_path):
    publish(tmp_path, tree)
    done = pymachine("pull", "pymtest:debian/99")
    assert_refused(done, f"has no image 'debian/99' for {ARCHITECTURE}")
    assert "debian/bookworm" in done.stderr


def test_signed_lists_are_believed_and_others_not(pymachine, web, remote, tree, tmp_path, signer):
    publish(tmp_path, tree, ("root.tar.xz",))
    remote(f"Keyring={signer.keyring}")
    assert_refused(pymachine("pull", "pymtest:debian/12"), "the server has no such file")
    sign(tmp_path, signer)
    assert_pulled(pymachine("pull", "pymtest:debian/12"), tree)
    sign(tmp_path, signer, "others@example.org")
    assert_refused(pymachine("pull", "pymtest:debian/12"), "key is not in the keyring")
    sign(tmp_path, signer)
    path = tmp_path / "streams/v1/images.sjson"
    path.write_bytes(path.read_bytes().replace(b"Debian", b"Demian"))
    assert_refused(pymachine("pull", "pymtest:debian/12"), "it is of other data")
    remote(f"Keyring={signer.keyring}", "Insecure=yes")
    assert_pulled(pymachine("pull", "pymtest:debian/12", "--verify=checksum", "-q"), tree)


def test_a_keyring_can_be_asked_for(pymachine, web, remote, tree, tmp_path, signer):
    publish(tmp_path, tree, ("root.tar.xz",))
    done = pymachine("pull", "pymtest:debian/12", "--verify=signature")
    assert_refused(done, "No keys are known")
    sign(tmp_path, signer)
    words = ("--verify=signature", f"--keyring={signer.armored}")
    assert_pulled(pymachine("pull", "pymtest:debian/12", *words), tree)


def test_a_file_that_was_tampered_with_is_refused(pymachine, web, remote, tree, tmp_path):
    file = publish(tmp_path, tree, ("root.tar.xz",))
    file.write_bytes(file.read_bytes() + b"more")
    assert_refused(pymachine("pull", "pymtest:debian/12"), "The checksum of")


def test_without_tls_and_keys_nothing_is_fetched(pymachine, web, remote, tree, tmp_path):
    publish(tmp_path, tree)
    remote()
    assert_refused(pymachine("pull", "pymtest:debian/12"), "neither TLS nor signatures")
    assert web.asked == []


@pytest.mark.parametrize(
    "path", ["../../etc/shadow", "/etc/shadow", "http://example.org/x", "a//b", ""]
)
def test_a_list_names_nothing_outside_its_server(pymachine, web, remote, tree, tmp_path, path):
    item = {"ftype": "root.tar.xz", "path": path, "sha256": "0" * 64}
    product = {
        "aliases": "debian/12",
        "arch": ARCHITECTURE,
        "versions": {"1": {"items": {"root.tar.xz": item}}},
    }
    write(tmp_path, {"x": product})
    assert_refused(pymachine("pull", "pymtest:debian/12"), "makes no sense")


@pytest.mark.parametrize("text", ["", "[]", '{"index": 3}', '{"index": {"x": []}}', "{"])
def test_nonsense_is_told_in_one_line(pymachine, web, remote, tmp_path, text):
    (tmp_path / "streams/v1").mkdir(parents=True)
    (tmp_path / "streams/v1/index.json").write_text(text)
    assert_refused(pymachine("pull", "pymtest:debian/12"), "makes no sense")


def test_an_image_for_virtual_machines_only_is_refused(pymachine, remote, tree, tmp_path):
    publish(tmp_path, tree, ("disk-kvm.img",))
    assert_refused(pymachine("pull", "pymtest:debian/12"), "for virtual machines only")


def test_search_lists_what_there_is_for_us(pymachine, web, remote, tree, tmp_path):
    publish(tmp_path, tree, ("disk-kvm.img",))
    done = pymachine("search", "pymtest:debian", "--json=short")
    assert done.returncode == 0, done.stderr
    (offer,) = json.loads(done.stdout)
    assert (offer["image"], offer["version"]) == ("debian/12", "20240102_05:24")
    assert "debian/bookworm/default" in offer["aliases"]
    assert json.loads(pymachine("search", "pymtest:fedora", "-j").stdout) == []
    shown = pymachine("search", "pymtest:").stdout.splitlines()
    assert shown[0].split() == ["IMAGE", "VERSION", "DESCRIPTION"]
    assert shown[1].split() == ["debian/12", "20240102_05:24", "Debian"]
    listed = json.loads(pymachine("search", "-j").stdout)
    assert {"name": "pymtest", "type": "simplestreams", "url": web.url} in listed


def test_an_unknown_remote_is_told_with_those_that_are_known(pymachine, remote):
    done = pymachine("pull", "nosuch:debian/12")
    assert_refused(done, "no remote 'nosuch'")
    assert "docker, images, pymtest, ubuntu" in done.stderr
