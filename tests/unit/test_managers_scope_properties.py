from __future__ import annotations

import pytest

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.managers.properties import INFINITY
from machinectl_py.managers.scope_properties import to_dbus


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TasksMax", "infinity", ("TasksMax", "t", INFINITY)),
        ("MemoryMax", "1G", ("MemoryMax", "t", 1 << 30)),
        ("CPUQuota", "20%", ("CPUQuotaPerSecUSec", "t", 200_000)),
        ("CPUWeight", "idle", ("CPUWeight", "t", 0)),
        ("AllowedCPUs", "0-2,9", ("AllowedCPUs", "ay", [0b111, 0b10])),
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5_000_000)),
        ("DeviceAllow", "char-pts", ("DeviceAllow", "a(ss)", [("char-pts", "rwm")])),
        ("IPAddressAllow", "10.0.0.0/8", ("IPAddressAllow", "a(iayu)", [(2, [10, 0, 0, 0], 8)])),
        ("IPAddressDeny", "::1", ("IPAddressDeny", "a(iayu)", [(10, [0] * 15 + [1], 128)])),
        ("IOReadIOPSMax", "/dev/vda 1K", ("IOReadIOPSMax", "a(st)", [("/dev/vda", 1000)])),
        ("After", "a.service b.service", ("After", "as", ["a.service", "b.service"])),
    ],
)
def test_text_of_unit_files_becomes_typed_properties(name, text, expected):
    assert to_dbus(((name, text),)) == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("KillMode", "gently"),
        ("DeviceAllow", "/dev/fuse rwx"),
        ("IPAddressAllow", "10.0.0.0/33"),
        ("IPAddressAllow", "somewhere"),
        ("IOReadBandwidthMax", "/dev/vda"),
        ("MemoryAccounting", "maybe"),
        ("TasksMax", "many"),
    ],
)
def test_an_invalid_value_is_named_with_its_property(name, text):
    with pytest.raises(ConfigError, match=f"{name}={text} is not valid: expected "):
        to_dbus(((name, text),))


@pytest.mark.parametrize("name", ["Delegate", "ExecStart", "PIDs", "tasksmax"])
def test_a_property_that_is_not_ours_to_set_is_refused_by_name(name):
    with pytest.raises(UnsupportedError, match=f"'{name}'"):
        to_dbus(((name, "1"),))
