"""`pull docker://…`, `oci:…` and `pull-oci`: a layout, and a registry on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.integration.transfers import CACHE, MACHINES, own_cache, own_store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes images")
DROP_IN = Path("/run/pymachine/remotes.conf.d/pymtest.conf")
DIRECTORY = {"type": tarfile.DIRTYPE}
LINK = {"type": tarfile.SYMTYPE}


@pytest.fixture(autouse=True)
def store():
    with own_cache(), own_store() as limit:
        yield limit


def layer(*members):
    """Return an archive of members: (name, {field: value}, content)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields, *content in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            for field, value in fields.items():
                setattr(member, field, value)
            text = content[0] if content else b""
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return data.getvalue()


def make_layout(path, *layers):
    """Write an image of these layers in OCI's layout, with the tag "test"."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    described = [add(data, "layer.v1.tar") for data in layers]
    ids = [item["digest"] for item in described]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ids},
        "config": {},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(json.dumps(config).encode(), "config.v1+json"),
        "layers": described,
    }
    entry = add(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "test"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


BASE = layer(
    ("etc", DIRECTORY),
    ("etc/os-release", {"uid": 3, "gid": 4, "mtime": 1000000000}, b"ID=test\n"),
    ("gone", DIRECTORY),
    ("gone/x", {}, b"x"),
    ("opaque", DIRECTORY),
    ("opaque/old", {}, b"old"),
    ("bin", {**LINK, "linkname": "usr/bin"}),
    ("usr", DIRECTORY),
    ("usr/bin", DIRECTORY),
    ("run.sh", {"mode": 0o4755, "pax_headers": {"SCHILY.xattr.user.x": "y"}}, b"#!/bin/sh\n"),
)
UPPER = layer(
    (".wh.gone", {}),
    ("opaque", DIRECTORY),
    ("opaque/.wh..wh..opq", {}),
    ("opaque/new", {}, b"new"),
    ("etc/os-release", {"uid": 5, "gid": 6}, b"ID=newer\n"),
)


def assert_tree(root):
    assert (root / "etc/os-release").read_text() == "ID=newer\n"
    status = (root / "etc/os-release").stat()
    assert (status.st_uid, status.st_gid) == (5, 6)
    assert not (root / "gone").exists()
    assert os.listdir(root / "opaque") == ["new"]
    assert os.readlink(root / "bin") == "usr/bin"
    assert (root / "run.sh").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(root / "run.sh", "user.x") == b"y"


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0]
    assert os.listdir(MACHINES) == []


def test_a_layout_becomes_a_tree_with_its_whiteouts(pymachine, tmp_path):
    layout = make_layout(tmp_path / "web", BASE, UPPER)
    done = pymachine("pull", f"oci:{layout}:test")
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/web\n"), done.stderr
    assert_tree(MACHINES / "web")
    assert os.listdir(MACHINES) == ["web"]
    assert os.listdir("/var/cache/pymachine/downloads") == []


def test_without_an_init_it_says_what_works(pymachine, tmp_path):
    layout = make_layout(tmp_path / "web", BASE)
    done = pymachine("pull", f"oci:{layout}:test")
    assert "warning: There is no systemd in the image" in done.stderr
    assert "pymachine run NAME -- COMMAND" in done.stderr
    init = layer(("usr/lib/systemd/systemd", {}, b"x"))
    layout = make_layout(tmp_path / "init", BASE, init)
    done = pymachine("pull", f"oci:{layout}:test")
    assert done.returncode == 0
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    "members",
    [
        [("../../../../etc/pymtest-victim", {}, b"broken")],
        [("/etc/pymtest-victim", {}, b"broken")],
        [("out", {**LINK, "linkname": "/etc"}), ("out/pymtest-victim", {}, b"broken")],
        [("out", {**LINK, "linkname": "../../../../../etc"}), ("out/.wh.pymtest-victim", {})],
        [("out", {**LINK, "linkname": "/etc"}), ("out/.wh..wh..opq", {})],
    ],
)
def test_a_hostile_layer_reaches_nothing_outside(pymachine, tmp_path, members):
    victim = Path("/etc/pymtest-victim")
    victim.write_text("whole")
    try:
        layout = make_layout(tmp_path / "evil", BASE, layer(*members))
        pymachine("pull", f"oci:{layout}:test")
        assert victim.read_text() == "whole"
    finally:
        victim.unlink()


def test_what_is_damaged_or_missing_is_refused(pymachine, tmp_path):
    layout = make_layout(tmp_path / "web", BASE, UPPER)
    assert_refused(pymachine("pull", f"oci:{layout}:nosuch"), "Cannot pull")
    assert_refused(pymachine("pull", f"oci:{tmp_path}/none:test"), "Cannot pull")
    for blob in (layout / "blobs/sha256").iterdir():
        if blob.read_bytes() == BASE:
            blob.write_bytes(BASE.replace(b"ID=test", b"ID=evil"))
    assert_refused(pymachine("pull", f"oci:{layout}:test"), "Cannot pull")


def test_a_source_that_names_nothing_is_told(pymachine):
    done = pymachine("pull", "docker://")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'docker://' names no image" in done.stderr


def test_a_full_disk_leaves_nothing(pymachine, tmp_path, store):
    layout = make_layout(tmp_path / "web", BASE, layer(("big", {}, os.urandom(20 << 20))))
    store("10m")
    assert_refused(pymachine("pull", f"oci:{layout}:test"), "no space left")


def test_of_a_killed_pull_no_download_goes_on(pymachine):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"docker://127.0.0.1:{silent.getsockname()[1]}/web:1"
        process = subprocess.Popen(pymachine.command("pull", source), stderr=subprocess.DEVNULL)
        silent.settimeout(10)
        connection, _ = silent.accept()  # skopeo is there, and waits
        process.kill()
        process.wait()
        connection.settimeout(5)
        while connection.recv(4096):  # what it said, and then that it is gone
            pass
        connection.close()
    pymachine("list-transfers", check=True)  # forgets the one that was killed
    layout = CACHE / "downloads/0.oci"  # as one that was killed later leaves it
    layout.mkdir(parents=True, exist_ok=True)
    assert str(layout) in pymachine("clean", check=True).stdout.splitlines()
    assert not [name for name in os.listdir(CACHE / "downloads") if name.endswith(".oci")]


@pytest.fixture
def registry(tmp_path):
    """The address of a registry that has "pymtest/web:1"; "pymtest" is a remote of it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        wait_for(f"http://{address}/v2/", process)
        layout = make_layout(tmp_path / "pushed", BASE, UPPER)
        words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:test"]
        subprocess.run([*words, f"docker://{address}/pymtest/web:1"], check=True)
        DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        DROP_IN.write_text(
            f"[pymtest]\nType=oci\nURL=docker://{address}/pymtest\nInsecure=yes\n"
            f"[pymtls]\nType=oci\nURL=docker://{address}/pymtest\n"
        )
        yield address
    finally:
        process.terminate()
        process.wait(10)
        DROP_IN.unlink(missing_ok=True)


def wait_for(url, process):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the registry does not come up")


def test_an_image_of_a_registry(pymachine, registry):
    done = pymachine("pull", "pymtest:web:1")
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/web\n"), done.stderr
    assert_tree(MACHINES / "web")


def test_a_registry_without_tls_is_not_believed(pymachine, registry):
    assert_refused(pymachine("pull", "pymtls:web:1"), "Cannot pull")
    assert_refused(pymachine("pull-oci", f"{registry}/pymtest/web:1", "web"), "HTTPS")


def test_a_missing_image_is_told_by_the_registry(pymachine, registry):
    assert_refused(pymachine("pull", "pymtest:web:2"), "manifest unknown")
