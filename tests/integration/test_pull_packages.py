"""`pymachine pull` of distributions with other package managers: tiny ones, from local mirrors."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from machinectl_py.images.builders.centos import CENTOS
from machinectl_py.images.builders.fedora import FEDORA
from tests.integration.repositories import make_pacman_packages, make_rpms
from tests.integration.transfers import MACHINES, own_store, signing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root builds images")
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCH = {
    "base": ("filesystem", "systemd", "util-linux"),
    "filesystem": (),
    "systemd": ("util-linux",),
    "util-linux": (),
    "extras": (),
}


@pytest.fixture(autouse=True)
def store():
    with own_store() as limit:
        yield limit
    for name in ("fedora", "centos", "arch", "ubuntu"):
        Path(f"/var/log/pymachine/pull-{name}.log").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    with signing(tmp_path_factory.mktemp("gnupg") / "home", algorithm="rsa2048") as gpg:
        yield gpg


@pytest.fixture(scope="module")
def rpms(tmp_path_factory, signer):
    """A mirror of a tiny Fedora; its packages are signed by "us"."""
    place = tmp_path_factory.mktemp("rpms") / "fedora"
    make_rpms(place, (*FEDORA.packages, "extras"), "fedora", signer)
    return place


@pytest.fixture(scope="module")
def pacman(tmp_path_factory, signer):
    """A mirror of a tiny Arch Linux, idem."""
    place = tmp_path_factory.mktemp("pacman")
    make_pacman_packages(place, ARCH, signer)
    return place


def assert_refused(done, text):
    messages = [line for line in done.stderr.splitlines() if line.startswith("pymachine: ")]
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(messages) == 1, done.stderr
    assert text in messages[0], done.stderr
    assert os.listdir(MACHINES) == []


def assert_made(done, name, tree):
    assert (done.returncode, done.stdout) == (0, f"{MACHINES}/{name}\n"), done.stderr
    assert os.listdir(MACHINES) == [name]
    assert f"ID={tree}\n" in (MACHINES / name / "usr/lib/os-release").read_text()
    assert (MACHINES / name / "usr/lib/systemd/systemd").exists()
    assert (MACHINES / name / "var/ran").read_text() == "ran\n"  # the script of a package
    assert (MACHINES / name / "var/seen").read_text() == "seen\n"
    assert (MACHINES / name / "etc/machine-id").read_bytes() == b""
    assert not (MACHINES / name / "etc/hostname").exists()
    assert (MACHINES / name / "etc/shadow").read_text().startswith("root:!unprovisioned:")
    assert os.listdir(MACHINES / name / "dev") == []
    assert not [entry for entry in os.listdir(MACHINES / name) if entry.startswith(".")]
    ours = subprocess.check_output(["findmnt", "-rno", "TARGET"], text=True)
    assert f".#{name}.new" not in ours


def test_fedora(pymachine, rpms, signer):
    mirror = ("pull", "fedora", f"--mirror=file://{rpms}", "--suite=1")
    done = pymachine(*mirror, "--keyring", signer.armored, "--include=extras", timeout=120)
    assert_made(done, "fedora", "fedora")
    assert (MACHINES / "fedora/usr/share/doc/extras/README").exists()
    # Where Fedora's own rpm looks for it.
    assert list((MACHINES / "fedora/usr/lib/sysimage/rpm").glob("rpmdb*"))
    assert not (MACHINES / "fedora/root/.rpmdb").exists()
    script = "read line </usr/lib/os-release; echo $line"
    ran = pymachine("run", "fedora", "--", "/usr/bin/sh", "-c", script)
    assert ran.stdout == "ID=fedora\n", ran.stderr


def test_rpms_that_nobody_signed_are_refused_unless_told(pymachine, tmp_path, signer):
    make_rpms(tmp_path / "mirror", CENTOS.packages, "centos")
    mirror = ("pull", "centos", f"--mirror=file://{tmp_path}/mirror", "--suite=10-stream")
    done = pymachine(*mirror, "--keyring", signer.armored, timeout=120)
    assert_refused(done, "dnf failed while downloading the packages: ")
    assert "is not signed" in Path("/var/log/pymachine/pull-centos.log").read_text()
    done = pymachine(*mirror, timeout=120)
    assert_refused(done, "There are no keys")
    assert "--keyring=" in done.stderr
    assert_made(pymachine(*mirror, "--verify=no", timeout=120), "centos", "centos")


def test_a_package_that_is_not_there_is_told_by_its_name(pymachine, rpms, pacman, signer):
    mirror = (f"--mirror=file://{rpms}", "--verify=no", "--include=nosuch")
    assert_refused(pymachine("pull", "fedora", *mirror, timeout=120), "nosuch")
    mirror = (f"--mirror=file://{pacman}/core", "--verify=no", "--include=nosuch")
    assert_refused(pymachine("pull", "arch", *mirror, timeout=120), "nosuch")


def test_a_full_disk_is_told(pymachine, rpms, pacman, store):
    for name, mirror in (("fedora", rpms), ("arch", f"{pacman}/core")):
        store("1m")
        done = pymachine("pull", name, f"--mirror=file://{mirror}", "--verify=no", timeout=120)
        assert_refused(done, f"no space left in {MACHINES}")


def test_arch(pymachine, pacman, signer):
    mirror = ("pull", "arch", f"--mirror=file://{pacman}/core")
    done = pymachine(*mirror, "--keyring", signer.keyring, "--include=extras", timeout=120)
    assert_made(done, "arch", "arch")
    assert (MACHINES / "arch/usr/share/doc/extras/README").exists()
    assert (MACHINES / "arch/var/lib/pacman/local/base-1-1").exists()
    assert not (MACHINES / "arch/etc/pacman.d/gnupg").exists()  # whose secret key all would share


def test_pacmans_packages_of_others_are_refused(pymachine, pacman, tmp_path, signer):
    others = tmp_path / "others.gpg"
    others.write_bytes(signer("--export", "others@example.org"))
    mirror = ("pull", "arch", f"--mirror=file://{pacman}/core")
    done = pymachine(*mirror, "--keyring", others, timeout=120)
    assert_refused(done, "pacman failed while verifying the packages: ")


def test_ubuntu_with_a_mirror_and_keyring_of_ones_own(pymachine, tmp_path, signer):
    """Debian passes for Ubuntu here; to be seen is whose packages are taken, and believed."""
    listed = ["apt-get", "indextargets", "--format=$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    uri, suite = subprocess.check_output(listed, text=True).split()[:2]
    mirror = ("pull", "ubuntu", f"--mirror={uri}", f"--suite={suite}")
    assert_refused(pymachine(*mirror, timeout=120), "There is no keyring")
    done = pymachine(*mirror, "--keyring", signer.keyring, timeout=120)
    assert_refused(done, "is not signed")
    done = pymachine(*mirror, "--keyring", DEBIAN_KEYRING, timeout=300)
    assert done.returncode == 0, done.stderr
    sources = (MACHINES / "ubuntu/etc/apt/sources.list").read_text()
    assert f"{uri} {suite} main universe" in sources
