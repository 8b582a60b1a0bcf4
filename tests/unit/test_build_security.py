"""Which steps bound a machine, in which order, and what is refused before any."""

from __future__ import annotations

import os
import resource

import pytest

from machinectl_py.config.label_spec import LabelSpec
from machinectl_py.config.spec import Rlimit, SeccompSpec, UsersSpec
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel import labels as kernel_labels
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.build_security import persona
from machinectl_py.plan.context import Context, Hooks
from machinectl_py.plan.security_facts import SecurityFacts
from machinectl_py.plan.steps import label
from machinectl_py.plan.steps.api import MountFileSystem
from machinectl_py.plan.steps.attributes import RaiseRlimits
from machinectl_py.runtime import enter
from tests.unit.test_plan_inside import FACTS, SPEC

CHOWN, ADMIN = parse_names(("CAP_CHOWN",)), parse_names(("CAP_SYS_ADMIN",))


def names(spec):
    return [step.name for step in build_plan(spec, FACTS).steps]


def in_order(spec, *wanted):
    found = [name for name in names(spec) if name in wanted]
    return found == list(wanted)


@pytest.mark.parametrize(
    ("machine", "name", "expected"),
    [
        ("x86_64", "x86-64", 0),
        ("x86_64", "x86", 8),
        ("aarch64", "arm", 8),
        ("s390x", "s390", 8),
        ("riscv64", "riscv64", 0),
    ],
)
def test_personalities_have_systemds_names(machine, name, expected):
    assert persona(name, SecurityFacts(machine=machine)) == expected


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "i686"), ("riscv64", "riscv32")])
def test_a_personality_that_the_kernel_has_not_is_refused(machine, name):
    with pytest.raises(UnsupportedError, match=f"no personality '{name}'"):
        persona(name, SecurityFacts(machine=machine))


def test_nothing_is_set_that_was_not_asked_for():
    attributes = {"adjust-oom-score", "raise-rlimits", "set-affinity", "set-personality"}
    assert not attributes & set(names(SPEC))


def test_limits_from_outside_are_set_before_the_payload_is_let_go():
    spec = SPEC.replace(
        oom_score_adjust=5,
        users=UsersSpec(mode="pick"),
        rlimits=(Rlimit(name="CORE", soft=0, hard=-1),),
    )
    order = ("clone-payload", "raise-rlimits", "adjust-oom-score", "delegate-controllers")
    assert in_order(spec, *order, "set-rlimits", "execute-payload")
    steps = {step.name: step for step in build_plan(spec, FACTS).steps}
    assert set(steps["raise-rlimits"].gives) == set(steps["set-rlimits"].needed_slots())


@pytest.mark.parametrize("capabilities", [CHOWN, CHOWN | ADMIN])
def test_ambient_capabilities_are_raised_after_all_that_empties_them(capabilities):
    spec = SPEC.replace(
        capabilities=capabilities, ambient=CHOWN, payload=SPEC.payload.replace(user="alice")
    )
    assert in_order(spec, "become-user", "limit-capabilities", "raise-ambient", "execute-payload")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ambient": CHOWN}, "CAP_CHOWN are not among"),
        (
            {
                "ambient": CHOWN,
                "capabilities": CHOWN,
                "payload": SPEC.payload.replace(kind="boot"),
            },
            "no use",
        ),
        ({"seccomp": SeccompSpec(deny=("nonesuch",))}, "no system call 'nonesuch'"),
        ({"seccomp": SeccompSpec(families=("AF_PUP",))}, "no address family 'AF_PUP'"),
        ({"oom_score_adjust": 1001}, "1001 is not from"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        build_plan(SPEC.replace(**changes), FACTS)


def test_only_hard_limits_are_raised_and_none_is_lowered(monkeypatch):
    held = {resource.RLIMIT_NOFILE: (5, 60), resource.RLIMIT_CORE: (0, -1)}
    asked = []

    def prlimit(pid, number, limits=None):
        if limits:
            asked.append((pid, number, limits))
        return held[number]

    monkeypatch.setattr(resource, "prlimit", prlimit)
    context = Context(Hooks())
    context.give("leader", 77)
    limits = (Rlimit(name="NOFILE", soft=500, hard=600), Rlimit(name="CORE", soft=0, hard=9))
    RaiseRlimits(rlimits=limits).apply(context)
    assert asked == [(77, resource.RLIMIT_NOFILE, (5, 600))]


LABELED = SecurityFacts(selinux=True, apparmor=True)
CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


def test_labels_are_opened_before_the_pivot_and_written_before_the_payload():
    labels = LabelSpec(selinux=CONTEXT, apparmor="machine")
    plan = build_plan(SPEC.replace(labels=labels), FACTS.replace(security=LABELED))
    order = ("open-selinux-label", "open-apparmor-label", "pivot-root", "set-selinux-label")
    order += ("set-apparmor-label", "limit-capabilities", "load-seccomp", "execute-payload")
    found = [step.name for step in plan.steps if step.name in order]
    assert set(found) == set(order)
    assert found[:5] == list(order[:5])


def test_file_systems_in_memory_get_their_context_and_no_others():
    spec = SPEC.replace(labels=LabelSpec(selinux_apifs=CONTEXT))
    plan = build_plan(spec, FACTS.replace(security=LABELED))
    mounts = {s.target: s.data for s in plan.steps if isinstance(s, MountFileSystem)}
    labeled = {target for target, data in mounts.items() if f'context="{CONTEXT}"' in data}
    assert {"/dev", "/dev/pts", "/dev/shm", "/run", "/tmp"} <= labeled
    assert not {"/proc", "/dev/mqueue", "/sys/fs/cgroup"} & labeled


@pytest.mark.parametrize(
    ("labels", "module"),
    [
        (LabelSpec(selinux=CONTEXT), "SELinux"),
        (LabelSpec(selinux_apifs=CONTEXT), "SELinux"),
        (LabelSpec(apparmor="machine"), "AppArmor"),
    ],
)
def test_labels_of_a_module_that_is_not_there_are_refused(labels, module):
    with pytest.raises(UnsupportedError, match=f"This kernel has no {module}"):
        build_plan(SPEC.replace(labels=labels), FACTS)


@pytest.mark.parametrize("text", ['a"b', "a\nb"])
def test_what_is_no_label_is_refused(text):
    with pytest.raises(ConfigError, match="no label"):
        build_plan(SPEC.replace(labels=LabelSpec(selinux=text)), FACTS.replace(security=LABELED))


@pytest.fixture
def attributes(tmp_path, monkeypatch):
    """Put a directory of plain files in the place of /proc/self/attr."""
    monkeypatch.setattr(kernel_labels, "ATTRIBUTES", str(tmp_path))
    (tmp_path / "exec").touch()
    return tmp_path


def apply(*steps):
    context = Context(Hooks())
    for step in steps:
        step.apply(context)
    for number in context.slots.values():
        os.close(number)


def test_the_selinux_context_is_written(attributes):
    apply(label.OpenSelinuxLabel(), label.SetSelinuxLabel(selinux=CONTEXT))
    assert (attributes / "exec").read_text() == CONTEXT


@pytest.mark.parametrize("own", [True, False])
def test_the_apparmor_profile_is_written_to_its_modules_own_file_if_there_is_one(attributes, own):
    if own:
        (attributes / "apparmor").mkdir()
        (attributes / "apparmor" / "exec").touch()
    apply(label.OpenApparmorLabel(), label.SetApparmorLabel(profile="machine"))
    path = "apparmor/exec" if own else "exec"
    assert (attributes / path).read_text() == "exec machine"


def test_who_enters_takes_the_labels(attributes):
    enter._set_labels(LabelSpec(selinux=CONTEXT))
    assert (attributes / "exec").read_text() == CONTEXT
    (attributes / "exec").write_text("")
    enter._set_labels(LabelSpec(apparmor="machine"))
    assert (attributes / "exec").read_text() == "exec machine"
