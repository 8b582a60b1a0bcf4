"""The tables of the D-Bus API."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinectl_py.runtime.properties import PROPERTIES
from machinectl_py.service import interfaces as api
from machinectl_py.thirdparty import need

# dbus-next imports GLib's bindings too, where they are installed; theirs is the warning.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,20}[A-Za-z0-9])?", fullmatch=True))
def test_a_path_stands_for_one_name(name):
    path = api.machine_path(name)
    assert api.machine_of(path) == name
    need("dbus_next.validators").assert_object_path_valid(path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("web", "/org/pymachine1/machine/web"),
        ("db-1.example", "/org/pymachine1/machine/db_2d1_2eexample"),
        ("9lives", "/org/pymachine1/machine/_39lives"),
    ],
)
def test_paths_are_escaped_as_systemd_does(name, path):
    assert api.machine_path(name) == path


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/org/pymachine1",
        "/org/pymachine1/machine",
        "/org/pymachine1/machine/web/more",
        "/org/pymachine1/machine/a_zz",
        "/org/pymachine1/machine/a_2",
        "/org/pymachine1/machine/a_62",  # "b" needs no escape
        "/org/pymachine1/machinery/web",
    ],
)
def test_other_paths_stand_for_no_machine(path):
    assert api.machine_of(path) == ""


def test_every_property_of_a_machine_has_a_type():
    assert set(api.MACHINE_PROPERTIES) == set(PROPERTIES)
    assert set(api.CHANGING) <= set(PROPERTIES)


@pytest.mark.parametrize(
    ("path", "interface", "below"),
    [
        ("/", None, ["org"]),
        ("/org", None, ["pymachine1"]),
        ("/org/pymachine1", api.MANAGER, ["machine"]),
        ("/org/pymachine1/machine", None, ["a", "b_2dc"]),
        ("/org/pymachine1/machine/b_2dc", api.MACHINE, []),
        ("/org/pymachine1/machine/gone", None, []),
        ("/com", None, []),
    ],
)
def test_objects_are_introspected(path, interface, below):
    node = ET.fromstring(api.introspect(path, ("a", "b-c")))
    ours = [one for one in node.findall("interface") if "pymachine" in one.get("name")]
    assert [one.get("name") for one in ours] == ([interface] if interface else [])
    assert [one.get("name") for one in node.findall("node")] == below
