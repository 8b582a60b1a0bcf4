"""The Debian package: installed, used, upgraded, removed in a container host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hosts.apart import systemd_runs

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not systemd_runs(), reason="a package is installed in a test host alone"),
]


def run(*command, status=0):
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == status, done
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    said = run(REPOSITORY / "packaging/make-deb", tmp_path_factory.mktemp("deb"))
    return said.splitlines()[0]


@pytest.fixture
def installed(package):
    run("dpkg", "--install", package)
    yield package
    subprocess.run(["dpkg", "--purge", "pymachine"], check=False, capture_output=True)


def test_it_works_once_installed(installed, tree, machine):
    assert shutil.which("pymachine") == "/usr/bin/pymachine"
    compiled = Path("/usr/lib/pymachine/machinectl_py/__pycache__")
    assert any(compiled.glob("record.*.pyc"))
    place = Path(f"/var/lib/machines/{machine}")
    place.symlink_to(tree)
    unit = f"pymachine@{machine}.service"
    try:
        run("systemctl", "start", unit)
        assert machine in run("pymachine", "list")
        listed = ("org.pymachine1", "/org/pymachine1", "org.pymachine1.Manager", "ListMachines")
        assert machine in run("busctl", "call", *listed)
        run("dpkg", "--install", installed)  # again, as an upgrade
        assert machine in run("pymachine", "list")
        refused = run("dpkg", "--remove", "pymachine", status=1)
        assert f"these machines run: {machine}" in refused
        assert machine in run("pymachine", "list")
    finally:
        run("systemctl", "stop", unit)
        place.unlink()


def test_it_leaves_nothing_when_removed(package):
    before = _files()
    run("dpkg", "--install", package)
    run("pymachine", "list")
    assert _files() != before
    run("dpkg", "--purge", "pymachine")
    assert _files() == before
    assert "not-found" in run("systemctl", "show", "-P", "LoadState", "pymachine.service")


def _files():
    """Return the files in /usr and /etc that are named after us."""
    found = subprocess.run(
        ["find", "/usr", "/etc", "(", "-name", "*pymachine*", "-o", "-path", "*/pymachine/*", ")"],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(found.stdout.splitlines())
