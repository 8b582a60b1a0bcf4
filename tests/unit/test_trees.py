"""Trees to test with come from the mirrors that the host has, or not at all."""

from __future__ import annotations

import pytest

from tests.hosts import trees


def test_a_host_without_a_mirror_is_told(monkeypatch):
    monkeypatch.setattr(trees, "host_suite", lambda: "nonesuch")
    with pytest.raises(trees.TreeError, match=r"no mirror of 'nonesuch' .* PYMACHINE_TEST_TREE"):
        trees.sources("trixie")


def test_a_host_without_apt_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(trees.TreeError, match="no apt"):
        trees.sources("trixie")
