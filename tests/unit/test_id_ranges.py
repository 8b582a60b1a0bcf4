"""Ranges of ids: who gets which, and whose are left alone."""

from __future__ import annotations

import os

import pytest

from machinectl_py.errors import ConflictError, UnsupportedError
from machinectl_py.kernel.locks import take_lock
from machinectl_py.plan import id_ranges
from machinectl_py.plan.id_ranges import FIRST, LAST, SIZE, lock_path, pick_range, release_range
from machinectl_py.plan.siphash import siphash24


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """Have locks and files of one's own."""
    monkeypatch.setattr(id_ranges, "ID_LOCK_DIR", str(tmp_path / "locks"))
    monkeypatch.setattr(id_ranges, "_SUBORDINATE", (str(tmp_path / "subuid"),))
    monkeypatch.setattr(id_ranges, "_has_users", lambda _base: False)
    return tmp_path


def test_siphash_is_that_of_the_paper():
    # Aumasson and Bernstein, appendix A.
    assert siphash24(bytes(range(15)), bytes(range(16))) == 0xA129CA6149BE45E5


def test_a_name_gets_the_same_range_again_and_nobody_else():
    first = pick_range("web", 0)
    assert FIRST <= first.base <= LAST
    assert first.base % SIZE == 0
    second = pick_range("web", 0)
    assert second.base != first.base
    for held in (first, second):
        release_range(held.base, held.lock)
    assert pick_range("web", 0).base == first.base


def test_what_is_preferred_comes_first_if_it_is_a_machines():
    assert pick_range("web", 10 * SIZE).base == 10 * SIZE
    assert pick_range("web", 10 * SIZE).base != 10 * SIZE
    assert pick_range("other", SIZE).base != SIZE


def test_ranges_of_users_are_left_alone(apart):
    base = pick_range("web", 0).base
    os.unlink(lock_path(base))
    (apart / "subuid").write_text(f"# a user\nuser:{base + 5}:10\n")
    assert pick_range("web", 0).base != base


def test_ranges_that_users_of_the_host_are_in_are_left_alone(monkeypatch):
    base = pick_range("web", 0).base
    os.unlink(lock_path(base))
    monkeypatch.setattr(id_ranges, "_has_users", lambda tried: tried == base)
    assert pick_range("web", 0).base != base
    assert not os.path.exists(lock_path(base))


def test_only_ranges_that_are_mapped_are_picked(monkeypatch):
    monkeypatch.setattr(id_ranges, "id_map", lambda _pid: ((0, 0, SIZE), (FIRST, FIRST, SIZE)))
    assert pick_range("web", 0).base == FIRST
    with pytest.raises(ConflictError):
        pick_range("other", 0)
    monkeypatch.setattr(id_ranges, "id_map", lambda _pid: ((0, 0, SIZE),))
    with pytest.raises(UnsupportedError):
        pick_range("web", 0)


def test_a_lock_is_removed_by_its_holder_or_when_nobody_holds_it():
    held = pick_range("web", 0)
    release_range(held.base, -1)  # as another process would
    assert os.path.exists(lock_path(held.base))
    release_range(held.base, held.lock)
    assert not os.path.exists(lock_path(held.base))
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(held.lock)
    left = take_lock(lock_path(held.base))
    assert left is not None
    os.close(left)
    other = os.open("/dev/null", os.O_RDONLY)
    release_range(held.base, other)  # the number means something else in this process
    os.close(other)
    assert not os.path.exists(lock_path(held.base))
