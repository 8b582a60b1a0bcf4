"""`start`, `enable`, `disable`, and the settings that `cat` and `edit` show."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import COMMAND, REPOSITORY
from tests.hosts.apart import systemd_runs
from tests.integration.test_boot import one_error

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
UNIT = Path("/run/systemd/system/pymachine@.service")


@pytest.fixture
def image(tree, machine, pymachine):
    """The name of an image, which may be started."""
    place = Path(f"/var/lib/machines/{machine}")
    place.symlink_to(tree)
    yield machine
    if f"{machine} " in pymachine("list").stdout:
        pymachine("poweroff", machine, check=True)
    place.unlink()


@pytest.fixture
def unit():
    text = (REPOSITORY / "units/pymachine@.service").read_text()
    command = f"/usr/bin/python3 -SI {REPOSITORY}/packaging/pymachine"
    UNIT.write_text(text.replace("/usr/bin/pymachine", command))
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    yield
    UNIT.unlink()
    subprocess.run(["systemctl", "daemon-reload"], check=True)


@pytest.mark.skipif(systemd_runs(), reason="a host that systemd manages has units")
def test_without_systemd_it_is_started_all_the_same(pymachine, image):
    assert "No systemd" in one_error(pymachine("enable", image))
    pymachine("start", image, check=True)
    assert image in pymachine("list").stdout


@pytest.mark.skipif(not systemd_runs(), reason="needs systemd")
@pytest.mark.usefixtures("unit")
def test_a_machine_is_started_and_enabled_as_a_unit(pymachine, image):
    pymachine("start", image, check=True)
    unit = f"pymachine@{image}.service"
    assert pymachine("show", image, "-P", "Unit").stdout == f"{unit}\n"
    pymachine("enable", image, check=True)
    is_enabled = ["systemctl", "is-enabled", unit]
    assert subprocess.run(is_enabled, check=True, capture_output=True).stdout != b"disabled\n"
    pymachine("disable", "--now", image, check=True)
    assert image not in pymachine("list").stdout
    assert subprocess.run(is_enabled, check=False, capture_output=True).returncode


def test_bad_names_are_one_line(pymachine):
    for verb in ("start", "enable"):
        assert "no-such" in one_error(pymachine(verb, "no-such"))
        one_error(pymachine(verb), 2)
    assert "valid" in one_error(pymachine("disable", "../x"))
    assert "no-such" in one_error(pymachine("cat", "no-such"))
    assert "no-such" in one_error(pymachine("edit", "no-such"))


@pytest.fixture
def editor(tmp_path):
    """Return a function that has `edit` write a text."""

    def edit(name, text):
        program = tmp_path / "editor"
        program.write_text(f"#!/bin/sh\ncat >\"$1\" <<'END'\n{text}END\n")
        program.chmod(0o755)
        environment = os.environ | {"EDITOR": str(program), "SYSTEMD_EDITOR": ""}
        return subprocess.run(
            [*COMMAND, "edit", name], env=environment, capture_output=True, text=True, check=False
        )

    return edit


def test_settings_are_edited_and_shown(pymachine, image, editor):
    path = Path(f"/etc/systemd/nspawn/{image}.nspawn")
    try:
        assert "no settings" in one_error(pymachine("cat", image))
        assert editor(image, "[Exec]\nHostname=other\n").returncode == 0
        assert pymachine("cat", image).stdout == f"# {path}\n[Exec]\nHostname=other\n"
        done = editor(image, "[Exec]\nHostname=other\nBoot=perhaps\n")
        assert done.returncode == 1
        assert f"{path}.draft:3" in done.stderr
        assert path.read_text() == "[Exec]\nHostname=other\n"
        assert "perhaps" in Path(f"{path}.draft").read_text()
        assert editor(image, "[Exec]\nHostname=third\n").returncode == 0
        assert path.read_text() == "[Exec]\nHostname=third\n"
        assert not Path(f"{path}.draft").exists()
        assert "Nothing changed" in editor(image, "[Exec]\nHostname=third\n").stderr
        pymachine("boot", image, check=True)
        assert pymachine("exec", image, "--", "uname", "-n").stdout == "third\n"
    finally:
        path.unlink(missing_ok=True)
