"""The allow-list of system calls: groups, capabilities, what is added and taken away."""

from __future__ import annotations

import pytest

from machinectl_py.errors import ConfigError
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.plan.syscalls import GROUPS, allowed_calls, known_calls


@pytest.mark.parametrize("call", ["read", "execve", "clone3", "mount", "prctl", "seccomp"])
def test_calls_of_every_program_need_no_capability(call):
    assert call in allowed_calls(0)


@pytest.mark.parametrize("call", ["bpf", "keyctl", "swapon", "kexec_load", "open_by_handle_at"])
def test_calls_that_no_namespace_confines_are_never_allowed_by_default(call):
    everything = (1 << 41) - 1
    assert call in known_calls()
    assert call not in allowed_calls(everything)


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_MODULE", "finit_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_RAWIO", "iopl"),
        ("CAP_IPC_LOCK", "mlockall"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_PTRACE", "ptrace"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ],
)
def test_a_privileged_call_follows_its_capability(capability, call):
    mask = parse_names((capability,))
    assert call in allowed_calls(mask)
    assert call not in allowed_calls(~mask)


def test_allow_adds_names_and_groups():
    added = set(allowed_calls(0, allow=("bpf", "@keyring"))) - set(allowed_calls(0))
    assert added == {"bpf", "add_key", "keyctl", "request_key"}


def test_deny_takes_away_names_and_groups():
    taken = set(allowed_calls(0)) - set(allowed_calls(0, deny=("chmod", "@chown")))
    assert taken == {"chmod", *GROUPS["@chown"].split()}


def test_deny_wins_over_allow():
    assert "keyctl" not in allowed_calls(0, allow=("@keyring",), deny=("keyctl",))


def test_a_group_holds_the_groups_in_it():
    assert "landlock_restrict_self" not in allowed_calls(0, deny=("@default",))


@pytest.mark.parametrize(
    ("name", "line", "hint"),
    [
        ("kexec_lod", "There is no system call 'kexec_lod'", "Did you mean 'kexec_load'?"),
        ("@keyrings", "There is no group of system calls '@keyrings'", "Did you mean '@keyring'?"),
        ("zzzzzzzzz", "There is no system call 'zzzzzzzzz'", ""),
    ],
)
@pytest.mark.parametrize("side", ["allow", "deny"])
def test_an_unknown_name_is_refused_with_the_closest_known(side, name, line, hint):
    with pytest.raises(ConfigError) as caught:
        allowed_calls(0, **{side: (name,)})
    assert (caught.value.message, caught.value.hint) == (line, hint)


def test_every_group_can_be_expanded():
    for group in GROUPS:
        assert allowed_calls(0, allow=(group,))
