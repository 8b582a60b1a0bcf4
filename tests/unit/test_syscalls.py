"""The allow-list of system calls: groups, capabilities, what is added and taken away."""

from __future__ import annotations

import errno

import pytest

from machinectl_py.errors import ConfigError
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.seccomp import Action
from machinectl_py.plan.syscalls import GROUPS, allowed_calls, answers, known_calls


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


def test_every_call_can_be_allowed_at_once():
    assert set(allowed_calls(0, allow=("@known",))) == known_calls()


def test_a_denied_call_can_have_an_errno_or_kill():
    deny = ("@swap:ENOSYS", "ptrace:kill", "acct:13", "swapoff", "bpf")
    assert answers(deny) == {
        "swapon": Action(kind="ERRNO", number=errno.ENOSYS),
        "ptrace": Action(kind="KILL_PROCESS"),
        "acct": Action(kind="ERRNO", number=13),
    }
    assert not {"swapon", "ptrace", "acct", "swapoff"} & set(allowed_calls(-1, deny=deny))


@pytest.mark.parametrize("text", ["", "EVERYTHING", "4096", "-1", "kil", "EPERM:EPERM"])
def test_an_unknown_errno_is_refused(text):
    with pytest.raises(ConfigError, match="neither an errno nor 'kill'"):
        answers((f"ptrace:{text}",))


def test_an_allowed_call_has_no_errno():
    with pytest.raises(ConfigError, match="'bpf:EPERM' allows"):
        allowed_calls(0, allow=("bpf:EPERM",))
