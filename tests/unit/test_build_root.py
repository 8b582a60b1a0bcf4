"""What the root is made of, in which order, and what is refused."""

from __future__ import annotations

import pytest

from machinectl_py.config.spec import BindMount, RootSpec, TmpfsMount
from machinectl_py.errors import ConfigError, PymachineError
from machinectl_py.plan import mount_facts
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.mount_facts import MountFacts, probe_mounts
from tests.unit.test_plan_inside import FACTS, SPEC


def steps(rootfs, mounts=(), **found):
    spec = SPEC.replace(rootfs=rootfs, mounts=mounts)
    facts = FACTS.replace(mounts=MountFacts(token="f00", **found))
    return build_plan(spec, facts).steps


def labels(rootfs, mounts=(), **found):
    return [step.label() for step in steps(rootfs, mounts, **found)]


def test_the_root_is_composed_before_the_pivot():
    rootfs = RootSpec(ephemeral=True, pivot_new="/new", volatile="yes")
    found = labels(rootfs, (BindMount(source="/", target="/"),))
    wanted = ["bind-root", "overlay-root", "enter-directory", "make-volatile-root"]
    wanted += ["cover-root", "pivot-root", "fill-base-tree", "mount /proc"]
    assert [label for label in found if label in wanted] == wanted
    assert found.index("clone-bind /") < found.index("clone-payload")
    inside = labels(rootfs, (BindMount(source="+/x", target="/"),), layer="/l")
    places = [inside.index(x) for x in ("make-volatile-root", "clone-inside", "cover-root")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("rootfs", "mounts", "read_only", "shared"),
    [
        (RootSpec(), (), False, False),
        (RootSpec(read_only=True), (), True, True),
        (RootSpec(volatile="state"), (), True, True),
        (RootSpec(volatile="yes", read_only=True), (), False, True),
        (RootSpec(volatile="overlay"), (), False, True),
        (RootSpec(ephemeral=True), (), False, True),
        (RootSpec(read_only=True), (TmpfsMount(target="/"),), False, True),
    ],
)
def test_which_roots_are_read_only_and_which_can_be_shared(rootfs, mounts, read_only, shared):
    made = steps(rootfs, mounts)
    assert ("read-only /" in [step.label() for step in made]) is read_only
    (lock,) = (step for step in made if step.name == "lock-root")
    assert lock.shared is shared


def test_a_snapshot_has_a_lock_of_its_own_and_is_the_root():
    made = steps(RootSpec(ephemeral=True), snapshot="/srv/.#machine.m")
    names = [step.name for step in made]
    assert names.index("lock-snapshot") + 1 == names.index("snapshot-root")
    assert "lock-root" not in names
    assert "overlay-root" not in names
    assert {step.root for step in made if step.name in ("bind-root", "pivot-root")} == {
        "/srv/.#machine.m"
    }


@pytest.mark.parametrize(
    ("rootfs", "found"),
    [
        (RootSpec(volatile="yes"), {"split_usr": True}),
        (RootSpec(pivot_old="/old"), {}),
        (RootSpec(pivot_new="new"), {}),
        (RootSpec(pivot_new="/"), {}),
    ],
)
def test_roots_that_cannot_be(rootfs, found):
    with pytest.raises(PymachineError) as caught:
        steps(rootfs, **found)
    assert type(caught.value) is ConfigError


@pytest.mark.parametrize("subvolume", [True, False])
def test_where_an_ephemeral_root_is_made(monkeypatch, tmp_path, subvolume):
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setattr(mount_facts, "is_subvolume", lambda _path: subvolume)
    monkeypatch.setattr(mount_facts, "filesystem_magic", lambda _path: 0xEF53)
    found = probe_mounts(SPEC.replace(root=str(root), rootfs=RootSpec(ephemeral=True)))
    beside = f"{tmp_path}/.#machine.root{found.token}"
    assert (found.snapshot, found.layer) == ((beside, "") if subvolume else ("", beside))
    monkeypatch.setattr(mount_facts, "filesystem_magic", lambda _path: 0x794C7630)  # an overlay
    found = probe_mounts(SPEC.replace(root=str(root), rootfs=RootSpec(ephemeral=True)))
    assert found.layer == ""
