"""The order of mounts, and what is refused before anything is touched."""

from __future__ import annotations

import pytest

from machinectl_py.config.spec import (
    BindMount,
    InaccessibleMount,
    OverlayMount,
    RootSpec,
    TmpfsMount,
)
from machinectl_py.errors import ConfigError, NotFoundError, PymachineError, UnsupportedError
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.mount_facts import MountFacts
from machinectl_py.record import Record
from tests.unit.test_plan_inside import FACTS, SPEC

MOUNTS = MountFacts(token="f00", missing=("/none",), files=("/file",))


def labels(*mounts, rootfs=RootSpec()):  # noqa: B008 - a frozen record
    spec = SPEC.replace(mounts=mounts, rootfs=rootfs)
    return [step.label() for step in build_plan(spec, FACTS.replace(mounts=MOUNTS)).steps]


def attached(*mounts):
    wanted = ("bind /q", "mount /q", "hide /q")
    return [label.split()[1] for label in labels(*mounts) if label.startswith(wanted)]


def test_parents_come_first_by_their_names_as_bytes():
    paths = ("/qz", "/q/b", "/qä", "/q-a", "/q", "/q//a/")
    mounts = [TmpfsMount(target=path) for path in paths]
    assert attached(*mounts) == ["/q", "/q//a/", "/q/b", "/q-a", "/qz", "/qä"]


@pytest.mark.parametrize("target", ["/run/host/x", "/sys/x", "/sys/fs/cgroup/x", "/proc/x"])
def test_mounts_that_something_read_only_will_hold(target):
    found = labels(BindMount(source="/", target=target))
    sealed = "read-only /run/host" if target.startswith("/run") else "read-only /sys"
    early = target in ("/run/host/x", "/sys/x")
    assert (found.index(f"bind {target}") < found.index(sealed)) is early
    assert found.index(f"bind {target}") < found.index("share-mounts")


def test_a_missing_source_that_is_optional_is_no_step():
    assert attached(BindMount(source="/none", target="/q", optional=True)) == []


def test_of_several_on_one_target_the_last_is_a_step():
    one, other = BindMount(source="/a", target="/q"), BindMount(source="/b", target="/q/./")
    memory = TmpfsMount(target="/q")
    assert attached(one, other) == ["/q/./"]
    assert attached(other, memory, one) == ["/q"]
    assert "mount /q" in " ".join(labels(memory, one))


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        ([BindMount(source="/none", target="/t")], NotFoundError),
        ([BindMount(source="a", target="/t")], ConfigError),
        ([BindMount(source="+a", target="/t")], ConfigError),
        ([BindMount(source="/a", target="t")], ConfigError),
        ([InaccessibleMount(hidden="/")], ConfigError),
        ([TmpfsMount(target="/run/")], UnsupportedError),
        ([BindMount(source="/", target="/t", idmap="idmap")], UnsupportedError),
        ([BindMount(source="+/", target="/t", idmap="rootidmap")], UnsupportedError),
        ([OverlayMount(lower=(), upper="", target="/t")], ConfigError),
        ([OverlayMount(lower=("/none",), upper="", target="/t")], NotFoundError),
        ([OverlayMount(lower=("/file",), upper="", target="/t")], ConfigError),
        ([OverlayMount(lower=("/",), upper="/none", target="/t", read_only=True)], NotFoundError),
    ],
)
def test_what_cannot_be_mounted_is_refused(mounts, kind):
    with pytest.raises(PymachineError) as caught:
        labels(*mounts)
    assert type(caught.value) is kind


@pytest.mark.parametrize("changes", [{"ephemeral": True}, {"volatile": "overlay"}])
def test_an_upper_layer_in_a_root_that_goes_is_refused(changes):
    overlay = OverlayMount(lower=("/",), upper="+/x", target="/t")
    labels(overlay)
    with pytest.raises(UnsupportedError):
        labels(overlay, rootfs=RootSpec(**changes))


def test_directories_of_the_host_are_journaled_as_data():
    mounts = (
        BindMount(source="", target="/t"),
        OverlayMount(lower=("/",), upper="", target="/u"),
        OverlayMount(lower=("/",), upper="/none/up", target="/v"),
    )
    spec = SPEC.replace(mounts=mounts)
    steps = build_plan(spec, FACTS.replace(mounts=MOUNTS)).steps
    host = [step for step in steps if step.name.startswith(("make-temp", "make-work"))]
    assert [step.lifetime for step in host] == ["host", "host"]
    assert host[0].entries == ("0-src", "1-src", "1-work")
    assert host[1].describe() == "make /none/.#upf00"
    for step in host:
        assert isinstance(step, Record)
        assert type(step).from_data(step.to_data()) == step
