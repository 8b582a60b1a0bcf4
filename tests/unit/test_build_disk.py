"""The steps of a root that is a disk image, for hosts and images that we need not have."""

from __future__ import annotations

import struct

import pytest

from machinectl_py.config.spec import BindMount, RootSpec, UsersSpec
from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.images.verity import (
    VerityTree,
    find_root_hash,
    read_verity_superblock,
    root_hash_of,
    verity_parameters,
)
from machinectl_py.kernel.devicemapper import TARGET, table_of
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.disk import DiskFacts, DiskPartition, VerityFacts
from machinectl_py.plan.facts import HostFacts
from machinectl_py.plan.id_ranges import SIZE
from machinectl_py.plan.root_facts import RootFacts
from tests.unit.disk_tables import memory
from tests.unit.test_plan_inside import FACTS, SPEC

ROOT = DiskPartition(designator="root", offset=1 << 20, size=1 << 30, fstype="ext4", fsck="/fsck")
HOME = DiskPartition(designator="home", offset=2 << 30, size=1 << 20, fstype="xfs")
ESP = DiskPartition(designator="esp", offset=3 << 30, size=1 << 20, fstype="vfat")
HASHES = DiskPartition(designator="root-verity", offset=4 << 30, size=1 << 20, read_only=True)
USR = DiskPartition(designator="usr", offset=1 << 20, size=1 << 20, fstype="erofs", read_only=True)
SEALED = VerityFacts(designator="root", data_file="", sectors=8, parameters="1 {data} {hashes}")


PICKED = UsersSpec(mode="pick", ownership="auto")


def plan(*partitions, manager="embedded", rootfs=None, users=None, owner=None, mounts=(), **disk):
    spec = SPEC.replace(
        root="/images/m.raw",
        rootfs=RootSpec(image=True, **(rootfs or {})),
        users=users or UsersSpec(),
        mounts=mounts,
    )
    found = DiskFacts(partitions=partitions, **disk)
    facts = FACTS.replace(disk=found, manager=manager, root=owner or RootFacts())
    return build_plan(spec, facts)


def labels(made, *names):
    return [step.label() for step in made.steps if step.name in names]


def step(made, label):
    return next(step for step in made.steps if step.label() == label)


def test_each_file_system_is_mounted_before_the_birth_and_attached_after_the_pivot():
    order = [step.label() for step in plan(ROOT, HOME, ESP).steps]
    places = [
        *("lock-image", "open-image", "attach-loops", "start-supervisor"),
        *("check-file-system root", "mount-partition root", "mount-partition home"),
        *("mount-partition esp", "clone-payload"),
        *("attach-root", "pivot-root", "attach-partition home", "attach-partition esp"),
        "mount /proc",
    ]
    assert [label for label in order if label in places] == places
    assert "bind-root" not in order
    assert "lock-root" not in order


def test_read_only_is_so_at_every_layer():
    made = plan(ROOT, HOME, rootfs={"read_only": True})
    assert labels(made, "check-file-system") == []
    assert step(made, "attach-loops").read_only
    assert step(made, "lock-image").shared
    assert step(made, "open-image").read_only
    root = step(made, "mount-partition root")
    assert root.options == (("ro", ""), ("norecovery", ""))
    assert root.attributes & 1


@pytest.mark.parametrize("volatile", ["yes", "state", "overlay"])
def test_a_volatile_machine_writes_nothing_to_its_image(volatile):
    made = plan(ROOT, HOME, rootfs={"volatile": volatile})
    assert step(made, "attach-loops").read_only
    assert step(made, "lock-image").shared
    assert all(mount.attributes & 1 for mount in mounts_of(made))


def mounts_of(made):
    return [step for step in made.steps if step.name == "mount-partition"]


def test_a_root_that_is_covered_leaves_the_image_as_it_is():
    made = plan(ROOT, HOME, mounts=(BindMount(source="/srv", target="/"),))
    assert step(made, "open-image").read_only
    order = labels(made, "attach-root", "cover-root", "pivot-root", "attach-partition")
    assert order == ["attach-root", "cover-root", "pivot-root", "attach-partition home"]


def test_the_root_is_composed_with_its_usr_before_the_pivot():
    usr = USR.replace(offset=2 << 30)
    composed = ("attach-root", "enter-directory", "make-volatile-root", "overlay-root")
    names = (*composed, "attach-partition", "pivot-root", "fill-base-tree", "read-only")
    made = plan(ROOT, usr, HOME, rootfs={"volatile": "yes", "pivot_new": "/new"})
    assert labels(made, *names) == [
        *("attach-root", "attach-partition usr", "enter-directory", "make-volatile-root"),
        *("pivot-root", "attach-partition home", "fill-base-tree"),
    ]
    # An overlay shows no mounts.
    made = plan(USR, HOME, rootfs={"volatile": "overlay"})
    assert labels(made, *names) == [
        *("attach-root", "overlay-root", "attach-partition usr"),
        *("pivot-root", "attach-partition home", "fill-base-tree"),
    ]
    assert step(made, "overlay-root").nodev


def test_a_user_namespace_sees_its_ids_on_every_partition():
    made = plan(ROOT, HOME, ESP, users=PICKED)
    owners = {mount.label(): mount.owners for mount in mounts_of(made)}
    assert owners == {
        "mount-partition root": "map",
        "mount-partition home": "map",
        "mount-partition esp": "option",
    }
    root = step(made, "mount-partition root")
    assert root.needed_slots() == ("disk:root", "id-base", "id-delegated")
    names = [step.name for step in made.steps]
    assert names.index("hold-id-range") < names.index("mount-partition")
    assert names.index("become-root") < names.index("attach-root")
    assert names.count("attach-root") == 1
    assert not {"clone-root", "bind-root", "chown-root", "chown-partitions"}.intersection(names)


def test_the_root_in_memory_belongs_to_root_inside():
    owners = [mount.owners for mount in mounts_of(plan(USR, users=PICKED))]
    assert owners == ["option", "map"]


def test_owners_are_changed_where_they_cannot_be_mapped():
    unmappable = RootFacts(unmappable="f2fs of its partition 'root'")
    sealed = HOME.replace(read_only=True)
    for home, mounts in ((HOME, ("mount:root", "mount:home")), (sealed, ("mount:root",))):
        made = plan(ROOT, home, ESP, users=PICKED, owner=unmappable)
        assert step(made, "chown-partitions").mounts == mounts
        assert {mount.owners for mount in mounts_of(made)} == {"as-is", "option"}
    with pytest.raises(ConfigError, match="read-only"):
        plan(USR, users=PICKED, owner=unmappable)
    with pytest.raises(UnsupportedError, match="f2fs of its partition"):
        plan(ROOT, users=PICKED.replace(ownership="map"), owner=unmappable)


def test_an_image_that_has_been_given_to_a_range_stays_in_it():
    owner = RootFacts(uid=10 * SIZE, gid=10 * SIZE)
    made = plan(ROOT, users=UsersSpec(mode="root"), owner=owner)
    assert step(made, "hold-id-range").base == 10 * SIZE
    assert step(made, "mount-partition root").owners == "as-is"


@pytest.mark.parametrize(
    ("target", "slot", "inside"),
    [
        ("/srv/x", "mount:root", "srv/x"),
        ("/home/a/b", "mount:home", "a/b"),
        ("//home/.", "mount:home", "."),
        ("/homes", "mount:root", "homes"),
        ("/boot/x", "mount:root", "boot/x"),
    ],
)
def test_the_owner_of_a_target_is_looked_up_on_its_partition(target, slot, inside):
    bind = BindMount(source="/etc", target=target, idmap="owneridmap")
    clone = step(plan(ROOT, HOME, ESP, users=PICKED, mounts=(bind,)), f"clone-bind {target}")
    assert (clone.root, clone.inside) == (slot, inside)
    assert clone.needed_slots() == (slot,)


def test_a_block_device_is_not_copied():
    with pytest.raises(UnsupportedError, match="block device"):
        plan(ROOT, rootfs={"ephemeral": True}, block_device="7:1")
    made = plan(ROOT, rootfs={"ephemeral": True})
    assert step(made, "open-image").ephemeral
    assert step(made, "lock-image").shared


def test_boot_partitions_are_sealed_and_may_be_missing():
    esp = step(plan(ROOT, ESP), "mount-partition esp")
    assert ("umask", "0077") in esp.options
    assert esp.attributes & (2 | 4 | 8 | 0x200000) == 2 | 4 | 8 | 0x200000
    assert esp.optional
    assert not step(plan(ROOT, ESP), "mount-partition root").optional


def test_usr_alone_stands_in_a_tmpfs():
    made = plan(USR)
    assert labels(made, "mount-partition") == ["mount-partition root", "mount-partition usr"]
    assert step(made, "mount-partition root").fstype == "tmpfs"
    assert labels(made, "attach-root", "attach-partition", "pivot-root", "fill-base-tree") == [
        *("attach-root", "attach-partition usr", "pivot-root", "fill-base-tree")
    ]


def test_a_block_device_that_is_a_file_system_takes_no_loop_device():
    whole = ROOT.replace(offset=0)
    made = plan(whole, whole=True, block_device="252:1", manager="systemd", lock_beside=False)
    assert labels(made, "attach-loops") == []
    assert step(made, "mount-partition root").source == "disk:image"
    assert not step(made, "open-image").exclusive  # the mount itself claims it
    assert step(made, "start-scope").devices == ("image",)
    lock = step(made, "lock-image")
    assert (lock.number, lock.beside) == ("block-252:1", "")


def test_a_scope_may_use_the_loop_devices_of_its_machine():
    assert step(plan(ROOT, manager="systemd"), "start-scope").devices == ("loops",)


def test_a_root_hash_takes_a_device_mapper():
    with pytest.raises(UnsupportedError, match="/dev/mapper/control"):
        plan(ROOT, HASHES, verity=SEALED)
    made = plan(ROOT, HASHES, verity=SEALED, device_mapper=True, manager="systemd")
    assert step(made, "mount-partition root").source == "disk:verified"
    assert step(made, "activate-verity").needed_slots() == ("disk:root", "disk:root-verity")
    assert step(made, "start-scope").devices == ("loops", "verified")
    assert labels(made, "mount-partition") == ["mount-partition root"]


def test_facts_come_back_from_the_state_directory():
    facts = FACTS.replace(disk=DiskFacts(partitions=(ROOT, HASHES), verity=SEALED))
    assert HostFacts.from_data(facts.to_data()) == facts


def superblock(**changes):
    fields = {
        "hash_type": 1,
        "algorithm": b"sha256",
        "block": 4096,
        "blocks": 3,
        "salt": b"\x01\x02",
    }
    fields |= changes
    return struct.pack(
        "<8sII16s32sIIQH6x256s168x",
        *(b"verity\0\0", 1, fields["hash_type"], bytes(16), fields["algorithm"]),
        *(fields["block"], fields["block"], fields["blocks"]),
        *(len(fields["salt"]), fields["salt"]),
    )


def test_the_parameters_of_dm_verity_come_from_the_superblock():
    tree = read_verity_superblock(memory(superblock()), 0, 3 * 4096)
    assert verity_parameters(tree, "7:0", "7:1", "ab" * 32) == (
        f"1 7:0 7:1 4096 4096 3 1 sha256 {'ab' * 32} 0102"
    )
    signed = verity_parameters(tree, "7:0", "7:1", "ab" * 32, "key")
    assert signed.endswith(" 0102 2 root_hash_sig_key_desc key")
    assert isinstance(tree, VerityTree)


@pytest.mark.parametrize(
    "changes",
    [{"hash_type": 9}, {"algorithm": b"sha 1"}, {"block": 1}, {"blocks": 4}, {"blocks": 0}],
)
def test_a_superblock_that_promises_too_much_is_refused(changes):
    with pytest.raises(ConfigError, match="damaged"):
        read_verity_superblock(memory(superblock(**changes)), 0, 3 * 4096)


def test_a_table_is_as_the_device_mapper_reads_it():
    table = table_of("verity", "1 7:0 7:1", 24)
    start, length, status, following, kind = TARGET.unpack_from(table)
    assert (start, length, status, kind.rstrip(b"\0")) == (0, 24, 0, b"verity")
    assert following == len(table)
    assert len(table) % 8 == 0
    assert table[TARGET.size :].rstrip(b"\0") == b"1 7:0 7:1"


def test_root_hashes_are_found_beside_the_image(tmp_path):
    image = str(tmp_path / "m.raw")
    assert find_root_hash(image) is None
    (tmp_path / "m.usrhash").write_text(f"{'cd' * 32}\n")
    assert find_root_hash(image).designator == "usr"
    (tmp_path / "m.roothash").write_text("AB" * 32)
    (tmp_path / "m.roothash.p7s").write_bytes(b"PKCS7")
    found = find_root_hash(image)
    assert (found.hash, found.designator, found.signature) == ("ab" * 32, "root", "UEtDUzc=")
    assert find_root_hash(image, "ef" * 32).hash == "ef" * 32


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "ab" * 15])
def test_what_is_no_root_hash_is_refused(text):
    with pytest.raises(ConfigError, match="no root hash"):
        root_hash_of(text)
