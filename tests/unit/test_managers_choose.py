from __future__ import annotations

import subprocess
import sys

import pytest

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.managers import choose


@pytest.fixture
def host(monkeypatch):
    def make(systemd):
        monkeypatch.setattr(choose, "systemd_runs", lambda: systemd)

    return make


@pytest.mark.parametrize(
    ("systemd", "name", "keep_unit", "kind"),
    [
        (True, "auto", False, "systemd"),
        (True, "auto", True, "unit"),
        (True, "unit", False, "unit"),
        (True, "unit", True, "unit"),
        (True, "embedded", False, "embedded"),
        (False, "auto", False, "embedded"),
        (False, "embedded", False, "embedded"),
    ],
)
def test_the_manager_fits_host_and_options(host, systemd, name, keep_unit, kind):
    host(systemd)
    assert choose.manager_kind(name, keep_unit) == kind


@pytest.mark.parametrize(
    ("name", "keep_unit"), [("systemd", False), ("unit", False), ("auto", True), ("unit", True)]
)
def test_without_systemd_its_managers_are_refused(host, name, keep_unit):
    host(False)
    with pytest.raises(UnsupportedError, match="needs systemd as PID 1"):
        choose.manager_kind(name, keep_unit)


@pytest.mark.parametrize(("name", "keep_unit"), [("runit", False), ("systemd", True)])
def test_contradictions_are_refused(host, name, keep_unit):
    host(True)
    with pytest.raises(ConfigError):
        choose.manager_kind(name, keep_unit)


def test_only_the_chosen_manager_is_imported():
    code = (
        "import sys; from machinectl_py.managers.choose import choose;"
        "assert choose('embedded', False).name == 'embedded';"
        "print(*(n for n in sys.modules if n.startswith(('machinectl_py.managers.', 'pystemd'))))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(shown.stdout.split()) == {
        "machinectl_py.managers.choose",
        "machinectl_py.managers.embedded",
    }


def test_machined_needs_bus_and_an_unmasked_unit(monkeypatch, tmp_path):
    bus, units = tmp_path / "bus", [tmp_path / "etc", tmp_path / "usr"]
    monkeypatch.setattr(choose, "_SYSTEM_BUS", str(bus))
    monkeypatch.setattr(choose, "_UNIT_DIRECTORIES", tuple(map(str, units)))
    for directory in units:
        directory.mkdir()
    (units[1] / "systemd-machined.service").touch()
    assert not choose.has_machined()
    bus.touch()
    assert choose.has_machined()
    (units[0] / "systemd-machined.service").symlink_to("/dev/null")
    assert not choose.has_machined()
