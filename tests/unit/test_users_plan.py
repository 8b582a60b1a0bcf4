"""What the planner makes of a user namespace, for roots and hosts that we do not have."""

from __future__ import annotations

import pytest

from machinectl_py.config.spec import MachineSpec, Payload, RootSpec, UsersSpec
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.plan.bind_maps import bind_maps
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.facts import HostFacts
from machinectl_py.plan.id_ranges import FOREIGN_BASE, MAPPED_ROOT, SIZE
from machinectl_py.plan.root_facts import RootFacts
from machinectl_py.plan.steps.birth import ClonePayload
from machinectl_py.plan.users import machine_maps, plan_users, root_maps

BASE = 10 * SIZE
OVERLAY = RootFacts(unmappable="overlay at /srv/m")
FACTS = HostFacts(
    manager="embedded",
    register=False,
    time_namespace=True,
    foreground=True,
    os_release="/etc/os-release",
    os_ids=(("id", "debian"),),
    devices=(),
    can_make_devices=True,
    listen_fds=0,
    root_device=1,
    root_inode=2,
)


def spec(users, **changes):
    fields = {
        "name": "m",
        "root": "/srv/m",
        "payload": Payload(kind="command", argv=("true",)),
        "hostname": "m",
        "machine_id": "0" * 32,
        "users": users,
    }
    return MachineSpec(**(fields | changes))


def planned(users, root=None, **changes):
    return plan_users(spec(users, **changes), FACTS.replace(root=root or RootFacts()))


def owned(base, **changes):
    return RootFacts(uid=base, gid=base, **changes)


def fixed(ownership, base=BASE):
    return UsersSpec(mode="fixed", base=base, ownership=ownership)


def test_without_a_namespace_there_is_no_step_of_one():
    names = {step.name for step in build_plan(spec(UsersSpec()), FACTS).steps}
    assert names.isdisjoint({"hold-id-range", "write-id-maps", "become-root", "clone-root"})


def test_all_that_makes_a_namespace_stands_around_the_birth():
    steps = build_plan(spec(fixed("map")), FACTS).steps
    names = [step.name for step in steps]
    birth = names.index("clone-payload")
    assert {"hold-id-range", "clone-root", "clone-device-nodes"} <= set(names[:birth])
    assert {"write-id-maps", "make-api-mounts", "own-cgroup"} <= set(names[birth:])
    inside = [step.name for step in steps if step.place == "inside"]
    assert inside[0] == "become-root"
    clone = steps[birth]
    assert isinstance(clone, ClonePayload)
    assert clone.flags & const.CLONE_NEWUSER
    assert "mount:root" in clone.handed


@pytest.mark.parametrize(
    ("users", "root", "ownership"),
    [
        (fixed("auto"), RootFacts(), "map"),
        (fixed("auto"), OVERLAY, "chown"),
        (fixed("auto"), owned(FOREIGN_BASE), "foreign"),
        (fixed("auto"), owned(FOREIGN_BASE, unmappable="overlay"), "chown"),
        (fixed("auto"), owned(3 * SIZE), "chown"),
        (fixed("auto", base=0), RootFacts(), "as-is"),
        (fixed("map", base=0), OVERLAY, "as-is"),
        (fixed("off"), OVERLAY, "as-is"),
        (fixed("chown"), RootFacts(), "chown"),
        (UsersSpec(mode="pick", ownership="map"), RootFacts(), "map"),
    ],
)
def test_what_is_done_to_the_owners(users, root, ownership):
    assert planned(users, root).ownership == ownership


def test_the_range_of_the_roots_owner_is_tried_first():
    assert planned(UsersSpec(mode="pick", ownership="auto"), owned(BASE)).base == BASE
    taken = planned(UsersSpec(mode="root"), owned(BASE))
    assert (taken.source, taken.base) == ("fixed", BASE)


@pytest.mark.parametrize(
    ("users", "root", "error"),
    [
        (fixed("map"), OVERLAY, UnsupportedError),
        (fixed("foreign"), RootFacts(), ConfigError),
        (fixed("map"), owned(BASE), ConfigError),
        (fixed("chown", base=5), RootFacts(), ConfigError),
        (fixed("chown"), RootFacts(uid=0, gid=SIZE), ConfigError),
        (fixed("off").replace(count=0), RootFacts(), ConfigError),
        (UsersSpec(mode="root"), RootFacts(uid=BASE, gid=0), ConfigError),
        (UsersSpec(mode="pick"), RootFacts(namespaces=False), UnsupportedError),
    ],
)
def test_what_cannot_be_is_refused(users, root, error):
    with pytest.raises(error):
        planned(users, root)


def test_owners_in_a_read_only_root_are_only_left():
    read_only = RootSpec(read_only=True)
    with pytest.raises(ConfigError):
        planned(fixed("chown"), rootfs=read_only)
    assert planned(fixed("chown"), owned(BASE), rootfs=read_only).ownership == "chown"


def test_maps_of_the_machine_and_of_its_root():
    delegated = (20 * SIZE,)
    assert machine_maps(BASE, SIZE, delegated).uids == (
        (0, BASE, SIZE),
        (20 * SIZE, 20 * SIZE, SIZE),
    )
    host = (MAPPED_ROOT, 0, 1)
    assert root_maps("map", BASE, SIZE).gids == ((0, BASE, SIZE), host)
    assert root_maps("map", 0, SIZE).gids == ((0, 0, SIZE),)
    assert root_maps("foreign", BASE, SIZE).uids == ((FOREIGN_BASE, BASE, SIZE), host)
    assert root_maps("chown", BASE, SIZE) is None


@pytest.mark.parametrize(
    ("kind", "uids", "gids"),
    [
        ("idmap", ((0, BASE, SIZE),), ((0, BASE, SIZE),)),
        ("rootidmap", ((1000, BASE, 1),), ((1001, BASE, 1),)),
        ("owneridmap", ((1000, BASE + 5, 1),), ((1001, BASE + 6, 1),)),
    ],
)
def test_maps_of_bind_mounts(kind, uids, gids):
    maps = bind_maps(kind, BASE, SIZE, source=(1000, 1001), target=(5, 6))
    assert (maps.uids, maps.gids) == (uids, gids)


def test_a_bind_mount_is_mapped_only_by_wish():
    assert bind_maps("noidmap", BASE, SIZE) is None
