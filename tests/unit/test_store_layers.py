"""Records of machines, the layers they name, and what is planned for them."""

from __future__ import annotations

import pytest

from machinectl_py.codec import decode, encode
from machinectl_py.config.spec import RootSpec, UsersSpec
from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError
from machinectl_py.images import drivers, snapshots
from machinectl_py.images.diff import written_since
from machinectl_py.images.join import _replace, find_pairs
from machinectl_py.images.records import Machine, Snapshot
from machinectl_py.images.snapshots import check_tag
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.mount_facts import MountFacts
from tests.unit.test_plan_inside import FACTS, SPEC

OVERLAY = RootSpec(
    layers=("/l/2/upper", "/l/1/upper"), layer="/l/own", driver="overlay", made_from="debian"
)


def machine(name="web", **fields):
    values = {"driver": "overlay", "image": "debian", "base": "/m/debian", "own": f"{name}-own"}
    return Machine(name=name, **(values | fields))


def snapshot(tag, *layers):
    return Snapshot(tag=tag, created=1, layers=layers)


def plan(rootfs, users=UsersSpec()):  # noqa: B008 - frozen
    facts = FACTS.replace(mounts=MountFacts(token="f00"))
    return build_plan(SPEC.replace(rootfs=rootfs, users=users), facts).steps


def test_a_record_is_the_same_when_it_is_read_again():
    made = machine(layers=("b", "a"), origin=("a",), snapshots=(snapshot("one", "a"),))
    data = decode(encode(made.to_data()))
    assert Machine.from_data(data) == made


def test_a_record_names_all_layers_that_it_stands_on():
    made = machine(layers=("b", "a"), origin=("o",), snapshots=(snapshot("one", "s", "o"),))
    assert made.references() == {"web-own", "b", "a", "o", "s"}
    assert made.snapshot("one").layers == ("s", "o")
    with pytest.raises(NotFoundError, match="no snapshot 'two'"):
        made.snapshot("two")


@pytest.mark.parametrize("tag", ["one", "2026-11-25T09:12:55Z", "a.b_c+d", "x" * 64])
def test_tags(tag):
    check_tag(tag)


@pytest.mark.parametrize("tag", ["", "-a", ".a", "a/b", "a b", "a@b", "x" * 65, "ä"])
def test_what_is_no_tag(tag):
    with pytest.raises(ConfigError):
        check_tag(tag)


def test_layers_that_are_always_used_together_are_pairs():
    assert find_pairs([machine(layers=("c", "b", "a"))]) == [("c", "b"), ("b", "a")]
    # A snapshot that ends on b needs a apart from what is above.
    assert find_pairs([machine(layers=("c", "b", "a"), snapshots=(snapshot("s", "b", "a"),))]) == [
        ("b", "a")
    ]
    assert find_pairs([machine(layers=("b", "a"), origin=("a",))]) == []
    # Another machine goes on from b in its own way.
    other = machine("db", layers=("x", "b", "a"))
    assert find_pairs([machine(layers=("c", "b", "a")), other]) == [("b", "a")]


def test_what_is_written_to_is_never_of_a_pair():
    assert find_pairs([machine(layers=("a",))]) == []


def test_a_pair_is_replaced_wherever_it_stands():
    made = machine(layers=("c", "b", "a"), snapshots=(snapshot("s", "b", "a"),))
    joined = _replace(made, "b", "a", "new")
    assert (joined.layers, joined.snapshots[0].layers) == (("c", "new"), ("new",))
    # A chain that has the upper one otherwise keeps it.
    odd = machine(layers=("b", "z"))
    assert _replace(odd, "b", "a", "new") == odd


def test_what_was_written_since_a_snapshot_is_known_where_it_is_below():
    made = machine(layers=("c", "b", "a"))
    upper = drivers.upper_of
    assert written_since(made, ("b", "a")) == (upper("web-own"), upper("c"))
    assert written_since(made, ()) == tuple(map(upper, ("web-own", "c", "b", "a")))
    assert written_since(made, ("x", "a")) is None
    assert written_since(made.replace(driver="btrfs"), ()) is None


def test_settings_say_what_the_root_is_made_of():
    values = drivers.root_values(machine(layers=("b", "a"), read_only=True))
    assert values["layers"] == (drivers.upper_of("b"), drivers.upper_of("a"))
    assert values["layer"].endswith("/web-own")
    assert values["read_only"] is True
    values = drivers.root_values(machine(driver="btrfs", ephemeral=True))
    assert "layer" not in values
    assert (values["ephemeral"], values["transient"]) == (False, True)


@pytest.mark.parametrize("users", [UsersSpec(), UsersSpec(mode="pick", ownership="map")])
def test_layers_are_mounted_by_the_supervisor_and_attached_inside(users):
    steps = plan(OVERLAY, users)
    names = [step.name for step in steps]
    assert names.index("mount-layers") < names.index("clone-payload") < names.index("attach-root")
    assert "bind-root" not in names
    assert "clone-root" not in names
    (lock,) = (step for step in steps if step.name == "lock-root")
    assert lock.shared is True
    (mount,) = (step for step in steps if step.name == "mount-layers")
    assert "lowerdir=/l/2/upper:/l/1/upper:/" in mount.describe()
    assert mount.users is (users.mode != "no")
    assert ("id-base" in mount.needed_slots()) is mount.users


def test_what_is_shared_is_not_given_to_a_range():
    with pytest.raises(UnsupportedError, match="other machines stand on it"):
        plan(OVERLAY, UsersSpec(mode="pick", ownership="chown"))


def test_a_machine_of_its_own_is_not_made_ephemeral_by_its_settings():
    with pytest.raises(UnsupportedError, match="ephemeral"):
        plan(OVERLAY.replace(ephemeral=True))


def test_what_was_made_for_one_start_is_noted_first():
    steps = plan(OVERLAY.replace(transient=True))
    names = [step.name for step in steps]
    assert names.index("own-machine") < names.index("lock-root")


def test_tags_of_one_second(monkeypatch):
    monkeypatch.setattr(snapshots.time, "strftime", lambda _form, _now: "noon")
    tags = []
    for _ in range(3):
        taken = tuple(snapshot(tag) for tag in tags)
        tags.append(snapshots.new_tag(machine(snapshots=taken)))
    assert tags == ["noon", "noon.2", "noon.3"]
    later = machine(snapshots=(snapshot("noon.2"), snapshot("noon.x"), snapshot("noon.3")))
    assert snapshots.new_tag(later) == "noon.4"
