"""Profiles of system calls in JSON: what holds on which host, and what is not valid."""

from __future__ import annotations

import errno

import pytest

from machinectl_py.codec import encode
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.seccomp import Action, Condition, Rule
from machinectl_py.plan.oci_seccomp import ProfileHost, parse_profile

HOST = ProfileHost(machine="x86_64", release="6.1.0-18-amd64", capabilities=0)
ALLOW = Action(kind="ALLOW")


def parse(data, host=HOST):
    return parse_profile(encode(data), host)


def profile(*syscalls, **keys):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(syscalls)} | keys


def allow(*names, **keys):
    return {"names": list(names), "action": "SCMP_ACT_ALLOW"} | keys


def calls(found):
    return [call for rule in found.rules for call in rule.calls]


def test_a_default_and_a_list():
    found = parse(profile(allow("read", "write"), defaultErrnoRet=38))
    assert found.default == Action(kind="ERRNO", number=38)
    assert found.rules == (Rule(action=ALLOW, calls=("read", "write")),)
    assert found.architectures == ()


@pytest.mark.parametrize(
    ("keys", "action"),
    [
        ({"action": "SCMP_ACT_ERRNO"}, Action(kind="ERRNO", number=errno.EPERM)),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 0}, Action(kind="ERRNO", number=0)),
        ({"action": "SCMP_ACT_TRACE", "errnoRet": 9}, Action(kind="TRACE", number=9)),
        ({"action": "SCMP_ACT_KILL_THREAD"}, Action(kind="KILL")),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, Action(kind="KILL_PROCESS")),
        ({"action": "SCMP_ACT_LOG", "errnoRet": None}, Action(kind="LOG")),
    ],
)
def test_actions(keys, action):
    assert parse(profile({"name": "read"} | keys)).rules[0].action == action


def test_conditions_on_different_arguments_hold_together_on_one_they_are_alternatives():
    one = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}
    two = {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 6, "valueTwo": 2}
    first = Condition(argument=0, operator="EQ", value=1)
    second = Condition(argument=1, operator="MASKED_EQ", value=6, masked=2)
    together = parse(profile(allow("kill", args=[one, two])))
    assert [rule.conditions for rule in together.rules] == [(first, second)]
    apart = parse(profile(allow("kill", args=[one, one | {"value": 2}])))
    assert [rule.conditions for rule in apart.rules] == [(first,), (first.replace(value=2),)]


@pytest.mark.parametrize(
    ("filters", "meant"),
    [
        ({"includes": {"caps": ["CAP_BPF"]}}, True),
        ({"includes": {"caps": ["CAP_BPF", "CAP_KILL"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_KILL"]}}, True),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"includes": {}, "excludes": {}}, True),
        ({"includes": None}, True),
    ],
)
def test_an_item_holds_by_its_filters(filters, meant):
    host = HOST.replace(capabilities=parse_names(("CAP_BPF",)))
    assert calls(parse(profile(allow("read", **filters)), host)) == (["read"] if meant else [])


def test_architectures_are_listed_or_mapped():
    listed = parse(profile(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]))
    assert listed.architectures == ("X86_64", "X32")
    mapped = [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ]
    assert parse(profile(archMap=mapped)).architectures == ("X86_64", "X86")


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (profile(allow("prctl")), True),
        (profile(allow("read")), False),
        (profile(allow("prctl", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}])), False),
        (profile(defaultAction="SCMP_ACT_ALLOW"), True),
        (
            profile({"name": "prctl", "action": "SCMP_ACT_KILL"}, defaultAction="SCMP_ACT_ALLOW"),
            False,
        ),
    ],
)
def test_whether_a_call_is_allowed_whatever_its_arguments(data, allowed):
    assert parse(data).allows("prctl") == allowed


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "it is no object"),
        ({}, "defaultAction is no action: None"),
        (profile(defaultAction="ALLOW"), "defaultAction is no action: 'ALLOW'"),
        (profile(defaultErrnoRet=4096), "defaultErrnoRet is no number from 0 to 4095"),
        (profile(syscall=[]), "syscall is not known"),
        (profile("read"), r"syscalls\[0\] is no object"),
        (profile(allow()), r"syscalls\[0\] names no system call"),
        (profile(allow("read", name="write")), r"syscalls\[0\] has both name and names"),
        (profile(allow("read"), allow(7)), r"syscalls\[1\].names\[0\] is no name"),
        (profile(allow("read", exclude={})), r"syscalls\[0\].exclude is not known"),
        (profile(allow("read", args={})), r"syscalls\[0\].args is no array"),
        (profile(allow("read", args=[{"op": "EQ"}])), r"args\[0\].op is no comparison: 'EQ'"),
        (
            profile(allow("read", args=[{"op": "SCMP_CMP_EQ", "index": 6}])),
            r"args\[0\].index is no number from 0 to 5",
        ),
        (profile(allow("x", includes={"minKernel": "4"})), "minKernel is no version: '4'"),
        (profile(allow("x", excludes={"cap": []})), "excludes.cap is not known"),
        (profile(architectures=["SCMP_ARCH_Z80"]), "no such architecture: 'SCMP_ARCH_Z80'"),
        (profile(architectures=["SCMP_ARCH_ARM"], archMap=[{}]), "both architectures and archMap"),
    ],
)
def test_what_is_not_valid_is_told_with_its_place(data, said):
    with pytest.raises(ConfigError, match=f"^The seccomp profile is not valid: .*{said}"):
        parse(data)


def test_an_item_of_other_hosts_is_checked_too():
    with pytest.raises(ConfigError, match="action is no action"):
        parse(profile({"name": "x", "action": "no", "includes": {"arches": ["arm64"]}}))


def test_what_is_no_json_is_told_with_its_place():
    with pytest.raises(ConfigError, match=r"is no JSON: .*line 1 column 18"):
        parse_profile('{"defaultAction":}', HOST)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (profile(defaultAction="SCMP_ACT_NOTIFY"), "SCMP_ACT_NOTIFY"),
        (profile(listenerPath="/run/x"), "listener"),
        (profile(flags=["SECCOMP_FILTER_FLAG_LOG"]), "SECCOMP_FILTER_FLAG_LOG"),
    ],
)
def test_what_is_not_done_here_is_refused(data, said):
    with pytest.raises(UnsupportedError, match=said):
        parse(data)


def test_threads_need_no_synchronising():
    assert parse(profile(flags=["SECCOMP_FILTER_FLAG_TSYNC"])).rules == ()
