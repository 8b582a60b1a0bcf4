"""What is found on a disk image, and that no image makes us do anything else but refuse it."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinectl_py.errors import ConfigError, PymachineError, UnsupportedError
from machinectl_py.images import gpt_types
from machinectl_py.images.dissect import Disk, dissect
from machinectl_py.images.verity import RootHash
from tests.unit.disk_tables import (
    EROFS,
    EXT4,
    FIRST,
    SECTOR,
    SQUASHFS,
    VERITY,
    entry,
    gpt,
    mbr,
    memory,
)

OWN = gpt_types.ARCHITECTURES.get(os.uname().machine, gpt_types.ARCHITECTURES["x86_64"])
ROOT, ROOT_VERITY, ROOT_SIGNATURE, USR = OWN[0], OWN[1], OWN[2], OWN[3]
FOREIGN = gpt_types.ARCHITECTURES["s390x"][0]
BY_NAME = {designator: kind for kind, designator in gpt_types.COMMON.items()}
HASH = "0123456789abcdef" * 4


def look(disk, policy="", root_hash=None, **how) -> Disk:
    fd = memory(bytes(disk))
    try:
        return dissect(fd, policy, root_hash, **how)
    finally:
        os.close(fd)


def names(disk: Disk) -> list[str]:
    return [partition.designator for partition in disk.partitions]


def test_partitions_are_found_by_their_types():
    found = look(gpt(entry(ROOT), entry(BY_NAME["home"]), entry(BY_NAME["var"], content=EROFS)))
    assert names(found) == ["root", "home", "var"]
    root, _, var = found.partitions
    assert (root.offset, root.size, root.fstype) == (FIRST * SECTOR, 256 * SECTOR, "ext4")
    assert (root.read_only, var.fstype, var.read_only) == (False, "erofs", True)


def test_a_file_system_may_fill_the_image():
    found = look(SQUASHFS.ljust(8192, b"\0"))
    assert found.whole
    assert [(p.fstype, p.offset, p.size) for p in found.partitions] == [("squashfs", 0, 8192)]


def test_a_boot_sector_in_a_file_system_is_no_partition_table():
    data = bytearray(EXT4.ljust(8192, b"\0"))
    data[510:512] = b"\x55\xaa"
    data[450], data[458] = 0x83, 0xFF
    assert look(data).whole


def test_the_one_linux_partition_of_a_gpt_is_the_root():
    assert names(look(gpt(entry(BY_NAME["generic"])))) == ["root"]
    with pytest.raises(ConfigError, match="several Linux partitions"):
        look(gpt(entry(BY_NAME["generic"]), entry(BY_NAME["generic"])))


def test_the_one_bootable_linux_partition_of_an_mbr_is_the_root():
    found = look(mbr((0x83, False, EXT4), (0x83, True, EROFS)))
    assert [(p.designator, p.fstype, p.offset) for p in found.partitions] == [
        ("root", "erofs", 257 * SECTOR)
    ]
    with pytest.raises(ConfigError, match="no partition that can be the root"):
        look(mbr((0x83, False, EXT4)))


def test_the_backup_of_a_gpt_serves_where_the_first_is_damaged():
    disk = gpt(entry(ROOT))
    disk[SECTOR + 40] ^= 1
    assert names(look(disk)) == ["root"]
    disk[len(disk) - SECTOR + 40] ^= 1
    with pytest.raises(ConfigError, match="checksum of the GPT header"):
        look(disk)


def test_a_native_root_wins_over_a_foreign_and_the_newer_over_the_older():
    foreign = entry(FOREIGN, label="os_9")
    old, new = entry(ROOT, label="os_2"), entry(ROOT, label="os_10", sectors=512)
    root = look(gpt(foreign, old, new, foreign)).partitions[0]
    assert (root.label, root.size) == ("os_10", 512 * SECTOR)


def test_attributes_are_heeded():
    hidden = entry(BY_NAME["home"], attributes=gpt_types.NO_AUTO)
    grown = entry(BY_NAME["srv"], attributes=gpt_types.GROW_FILE_SYSTEM)
    sealed = entry(ROOT, attributes=gpt_types.READ_ONLY | gpt_types.GROW_FILE_SYSTEM)
    root, srv = look(gpt(sealed, hidden, grown)).partitions
    assert (root.read_only, root.growfs) == (True, False)
    assert (srv.designator, srv.growfs) == ("srv", True)


def test_partitions_may_not_overlap():
    with pytest.raises(ConfigError, match="'root' and 'home' overlap"):
        look(gpt(entry(ROOT), entry(BY_NAME["home"], at=FIRST + 255)))


def test_an_encrypted_partition_is_refused():
    with pytest.raises(UnsupportedError, match="encrypted with LUKS"):
        look(gpt(entry(ROOT, content=b"LUKS\xba\xbe")))


def test_two_file_systems_in_one_place_are_refused():
    with pytest.raises(ConfigError, match="both xfs and ext4"):
        look(gpt(entry(ROOT, content=b"XFSB" + EXT4[4:])))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("root=encrypted", "wants encrypted"),
        ("root=verity", "wants verity"),
        ("root=signed+verity", "wants signed"),
        ("root=unprotected+read-only-on:=ignore", "'read-only' off"),
        ("home=absent:=open", "forbids the partition 'home'"),
        ("root=ignore:home=unprotected", "can be the root"),
        ("root=unprotected:usr=unprotected:home=open", "'usr' is absent"),
        ("rot=open", "no partition 'rot'"),
        ("root=opne", "no flag 'opne'"),
        ("root", "is not PARTITION"),
    ],
)
def test_the_policy_is_enforced(policy, said):
    with pytest.raises(ConfigError, match=said):
        look(gpt(entry(ROOT), entry(BY_NAME["home"])), policy)


def test_the_policy_leaves_out_what_it_ignores():
    disk = gpt(entry(ROOT), entry(BY_NAME["home"]))
    assert names(look(disk, "root=unprotected:home=ignore")) == ["root"]
    assert names(look(disk, "*")) == ["root", "home"]
    with pytest.raises(ConfigError):
        look(disk, "-")
    with pytest.raises(ConfigError):
        look(disk, "~")


def verity_disk(signature: bytes = b"") -> bytearray:
    whole = RootHash(hash=HASH)
    parts = [
        entry(ROOT, number=whole.data_uuid),
        entry(ROOT_VERITY, content=VERITY, number=whole.hash_uuid),
    ]
    if signature:
        parts.append(entry(ROOT_SIGNATURE, content=signature))
    return gpt(*parts)


def test_a_root_hash_selects_and_protects_its_partitions():
    other = entry(ROOT, label="zzz")
    whole = RootHash(hash=HASH)
    parts = (
        entry(ROOT, number=whole.data_uuid),
        entry(ROOT_VERITY, content=VERITY, number=whole.hash_uuid),
    )
    found = look(gpt(other, *parts, other), root_hash=whole)
    assert found.protected == "root"
    root = found.find("root")
    assert (root.uuid, root.read_only) == (whole.data_uuid, True)
    assert look(verity_disk(), "root=verity:=ignore", whole).protected == "root"
    with pytest.raises(ConfigError, match="belong to the root hash"):
        look(verity_disk(), root_hash=RootHash(hash="f" * 64))


def test_verity_data_that_nobody_uses_are_no_protection():
    found = look(verity_disk())
    assert (found.protected, found.unused_verity) == ("", True)
    with pytest.raises(ConfigError, match="wants verity"):
        look(verity_disk(), "root=verity")


def test_an_embedded_signed_hash_is_used():
    signature = base64.b64encode(b"PKCS7").decode()
    text = f'{{"rootHash":"{HASH}","signature":"{signature}"}}'.encode()
    found = look(verity_disk(text), "root=signed")
    assert (found.protected, found.root_hash.signature) == ("root", signature)
    with pytest.raises(ConfigError, match="holds no signature"):
        look(verity_disk(b"{"))
    with pytest.raises(ConfigError, match="not the one given"):
        look(verity_disk(text.replace(b"89ab", b"89ac")), root_hash=RootHash(hash=HASH))


SAMPLES = (
    bytes(gpt(entry(ROOT), entry(BY_NAME["home"]), entry(USR, content=EROFS))),
    bytes(verity_disk(b'{"rootHash":"00","signature":""}')),
    bytes(mbr((0x83, True, EXT4), (0xEA, False, b""))),
    EXT4.ljust(8192, b"\0"),
)


@settings(max_examples=300, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=16))),
    cut=st.integers(0, 1 << 20),
    root_hash=st.sampled_from([None, RootHash(hash=HASH)]),
)
def test_no_image_brings_about_anything_but_a_result_or_a_refusal(sample, changes, cut, root_hash):
    data = bytearray(sample)
    for at, new in changes:
        place = at % 20000 % len(data)  # where the tables are
        data[place : place + len(new)] = new
    data = data[: len(data) - cut] if cut < len(data) else data
    try:
        found = look(data, root_hash=root_hash)
    except PymachineError:
        return
    assert found.partitions
    for partition in found.partitions:
        assert 0 <= partition.offset < partition.offset + partition.size <= len(data)


@settings(max_examples=300, deadline=None)
@given(fields=st.binary(min_size=128, max_size=512), front=st.integers(0, 1 << 64))
def test_no_entry_with_a_right_checksum_does_either(fields, front):
    import binascii
    import struct

    data = gpt(entry(ROOT), entry(BY_NAME["home"]))
    data[2 * SECTOR : 2 * SECTOR + len(fields)] = fields
    struct.pack_into("<Q", data, 2 * SECTOR + 32, front % (1 << 64))
    data[2 * SECTOR : 2 * SECTOR + 16] = bytes.fromhex("e3bc684fcde8b14d96e7fbcaf984b709")
    struct.pack_into("<I", data, SECTOR + 88, binascii.crc32(data[2 * SECTOR : 34 * SECTOR]))
    struct.pack_into("<I", data, SECTOR + 16, 0)
    struct.pack_into("<I", data, SECTOR + 16, binascii.crc32(data[SECTOR : SECTOR + 92]))
    try:
        found = look(data)
    except PymachineError:
        return
    for partition in found.partitions:
        assert 0 <= partition.offset < partition.offset + partition.size <= len(data)
