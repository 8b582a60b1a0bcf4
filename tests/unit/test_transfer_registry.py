"""What others see of a transfer: how far it is, whose it is, that it lives."""

from __future__ import annotations

import os

import pytest

from machinectl_py.errors import NotFoundError
from machinectl_py.images.transfer import registry
from machinectl_py.images.transfer.logins import without_login


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "TRANSFERS_DIR", str(tmp_path / "transfers"))
    return tmp_path / "transfers"


def nobody(_phase, _detail):
    pass


@pytest.mark.parametrize(
    ("detail", "percent"),
    [
        ("42 % of 3.0 GB, 1.2 MB/s", 42),
        ("12 of 66", 18),
        ("66 of 66", 100),
        ("0 of 0", -1),
        ("12.5 MB, 1.2 MB/s", -1),
        ("", -1),
    ],
)
def test_how_far_it_is(detail, percent):
    assert registry.percent_of(detail) == percent


def test_a_transfer_is_seen_as_long_as_it_lasts(place):
    with registry.registered("pull-tar", "web", "http://me:secret@x/web.tar", nobody) as told:
        told("unpacking", "7 %")
        (found,) = registry.transfers()
        assert (found.pid, found.kind, found.local) == (os.getpid(), "pull-tar", "web")
        assert (found.remote, found.phase, found.percent) == ("http://x/web.tar", "unpacking", 7)
    assert registry.transfers() == ()
    assert os.listdir(place) == []


def test_one_whose_pid_is_another_process_now_is_none(place):
    with registry.registered("pull-tar", "web", "x", nobody):
        path = place / f"{os.getpid()}.json"
        transfer = registry.transfers()[0]
        path.write_text(registry.encode(transfer.replace(start_ticks=1).to_data()))
        with pytest.raises(NotFoundError):
            registry.cancel(os.getpid())
        assert os.listdir(place) == []


def test_passwords_are_nobodys():
    assert without_login("https://a:b@c:8/d?e#f") == "https://c:8/d?e#f"
    assert without_login("https://c/d@e") == "https://c/d@e"
    assert without_login("/a@b") == "/a@b"
