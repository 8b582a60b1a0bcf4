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
        ("MemoryLow", "", ("MemoryLow", "t", 0)),
        ("StartupMemoryMax", "", ("StartupMemoryMax", "t", INFINITY)),
        ("StartupCPUWeight", "7", ("StartupCPUWeight", "t", 7)),
        ("CPUQuotaPeriodSec", "10ms", ("CPUQuotaPeriodUSec", "t", 10_000)),
        ("IODeviceWeight", "/dev/vda 200", ("IODeviceWeight", "a(st)", [("/dev/vda", 200)])),
        (
            "IODeviceLatencyTargetSec",
            "/dev/vda 25ms",
            ("IODeviceLatencyTargetUSec", "a(st)", [("/dev/vda", 25_000)]),
        ),
        ("DisableControllers", "io memory", ("DisableControllers", "as", ["io", "memory"])),
        ("DeviceAllow", "", ("DeviceAllow", "a(ss)", [])),
        ("IOReadIOPSMax", "", ("IOReadIOPSMax", "a(st)", [])),
        ("SocketBindDeny", "any", ("SocketBindDeny", "a(iiqq)", [(0, 0, 0, 0)])),
        ("SocketBindAllow", "ipv6", ("SocketBindAllow", "a(iiqq)", [(10, 0, 0, 0)])),
        ("SocketBindAllow", "udp:53", ("SocketBindAllow", "a(iiqq)", [(0, 17, 1, 53)])),
        (
            "SocketBindAllow",
            "ipv4:tcp:80-89",
            ("SocketBindAllow", "a(iiqq)", [(2, 6, 10, 80)]),
        ),
        (
            "RestrictNetworkInterfaces",
            "~eth0 eth1",
            ("RestrictNetworkInterfaces", "(bas)", (False, ["eth0", "eth1"])),
        ),
        ("NFTSet", "cgroup:inet:t:s", ("NFTSet", "a(iiss)", [(3, 1, "t", "s")])),
        ("BPFProgram", "ingress:/x", ("BPFProgram", "a(ss)", [("ingress", "/x")])),
        ("IPIngressFilterPath", "/x", ("IPIngressFilterPath", "as", ["/x"])),
        (
            "ManagedOOMMemoryPressureLimit",
            "100%",
            ("ManagedOOMMemoryPressureLimit", "u", (1 << 32) - 1),
        ),
        ("FinalKillSignal", "SIGABRT", ("FinalKillSignal", "i", 6)),
        ("FinalKillSignal", "RTMIN+3", ("FinalKillSignal", "i", 37)),
        ("FinalKillSignal", "9", ("FinalKillSignal", "i", 9)),
        ("After", "a.service b.service", ("After", "as", ["a.service", "b.service"])),
    ],
)
def test_text_of_unit_files_becomes_typed_properties(name, text, expected):
    assert to_dbus(((name, text),)) == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("KillMode", "gently"),
        ("SocketBindAllow", "ipv4:icmp"),
        ("SocketBindAllow", "tcp:0"),
        ("SocketBindAllow", "tcp:9-8"),
        ("SocketBindAllow", "80:tcp"),
        ("NFTSet", "ip:inet:t:s"),
        ("NFTSet", "cgroup:inet:t"),
        ("BPFProgram", "ingress"),
        ("IPEgressFilterPath", "x"),
        ("IODeviceWeight", "/dev/vda"),
        ("IODeviceLatencyTargetSec", "25ms"),
        ("FinalKillSignal", "SIGNONE"),
        ("FinalKillSignal", "0"),
        ("FinalKillSignal", "_DFL"),
        ("OOMPolicy", "ignore"),
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


@pytest.mark.parametrize(
    "name", ["Delegate", "ExecStart", "PIDs", "tasksmax", "KillSignal", "Slice"]
)
def test_a_property_that_is_not_ours_to_set_is_refused_by_name(name):
    with pytest.raises(UnsupportedError, match=f"'{name}'"):
        to_dbus(((name, "1"),))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("TaskMax", "Did you mean 'TasksMax'?"),
        ("KillSignal", "--kill-signal= does that."),
        ("ExecStart", "Scopes have those of"),
    ],
)
def test_who_gives_another_property_is_told_what_to_do(name, hint):
    with pytest.raises(UnsupportedError) as caught:
        to_dbus(((name, "1"),))
    assert caught.value.hint.startswith(hint)
