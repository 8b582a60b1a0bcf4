from __future__ import annotations

import pytest

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.managers.systemd import check_slice, escape, unit_name
from machinectl_py.managers.unit import find_unit


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("debian", "debian"),
        ("web-1", r"web\x2d1"),
        ("a.b_c", "a.b_c"),
        (".a", r"\x2ea"),
        ("a b", r"a\x20b"),
        ("ä", r"\xc3\xa4"),
        ("a/b", "a-b"),
    ],
)
def test_names_are_escaped(text, escaped):
    assert escape(text) == escaped
    assert unit_name(text) == f"machine-{escaped}.scope"


@pytest.mark.parametrize("name", ["machine.slice", "a-b.slice", r"a\x2db.slice"])
def test_valid_slices_pass(name):
    assert check_slice(name) == name


@pytest.mark.parametrize("name", ["machine", ".slice", "-a.slice", "a--b.slice", "a/b.slice"])
def test_invalid_slices_are_refused(name):
    with pytest.raises(ConfigError, match="no valid name of a slice"):
        check_slice(name)


@pytest.mark.parametrize(
    ("cgroup", "unit", "path"),
    [
        ("/c/system.slice/a.service", "a.service", "/c/system.slice/a.service"),
        ("/c/system.slice/a.service/supervisor", "a.service", "/c/system.slice/a.service"),
        ("/c/user@1.service/x.slice/b.scope", "b.scope", "/c/user@1.service/x.slice/b.scope"),
        ("/c/machine.slice/_cgroup.scope", "cgroup.scope", "/c/machine.slice/_cgroup.scope"),
    ],
)  # fmt: skip
def test_the_unit_is_the_innermost_of_the_path(cgroup, unit, path):
    assert find_unit(cgroup) == (unit, path)


@pytest.mark.parametrize("cgroup", ["/c", "/c/init.scope", "/c/user.slice", ""])
def test_outside_of_units_is_refused(cgroup):
    with pytest.raises(UnsupportedError, match="in no unit"):
        find_unit(cgroup)
