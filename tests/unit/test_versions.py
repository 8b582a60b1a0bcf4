"""Versions are ordered as the UAPI group's specification says."""

from __future__ import annotations

import pytest

from machinectl_py.images.versions import compare_versions

# The specification's own examples, the older first.
ORDERED = (
    ("~1", ""),
    ("", "-"),
    ("11", "11-1"),
    ("123.1-1", "123.1^post1"),
    ("124-1", "124^1"),
    ("12_0", "12_1"),
    ("122.1", "123~rc1-1"),
    ("123~rc1-1", "123"),
    ("123", "123-a"),
    ("123-a", "123-a.1"),
    ("123-a.1", "123-1"),
    ("123-1", "123-1.1"),
    ("123-1.1", "123^post1"),
    ("123^post1", "123.a-1"),
    ("123.a-1", "123.1-1"),
    ("123.1-1", "123a-1"),
    ("123a-1", "124-1"),
    ("9", "10"),
    ("os_2", "os_10"),
)


@pytest.mark.parametrize(("older", "newer"), ORDERED)
def test_order(older, newer):
    assert (compare_versions(older, newer), compare_versions(newer, older)) == (-1, 1)


@pytest.mark.parametrize("same", [("11", "011"), ("1_a", "1a"), ("1", "1")])
def test_what_has_no_meaning_makes_no_order(same):
    assert compare_versions(*same) == 0
