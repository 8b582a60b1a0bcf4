"""Users as passwd(5) and group(5) have them."""

from __future__ import annotations

import pytest

from machinectl_py.plan.user_database import parse_user

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
alice:x:1000:1001::/home/alice:/bin/zsh
1000:x:7:8::/seven:/bin/sh
broken:x:one:1::/:/bin/sh
short:x:1
bare:x:9:9:::
"""
GROUP = "alice:x:1001:\nwheel:x:10:bob,alice\nodd:x:eleven:alice\naudio:x:29:alice\n"


def test_a_name_and_its_groups():
    found = parse_user(PASSWD, GROUP, "alice")
    assert found is not None
    assert (found.uid, found.gid, found.groups) == (1000, 1001, (10, 29, 1001))
    assert (found.home, found.shell) == ("/home/alice", "/bin/zsh")


def test_a_name_comes_before_a_uid():
    assert parse_user(PASSWD, GROUP, "1000").uid == 7
    assert parse_user(PASSWD, GROUP, "9").name == "bare"


def test_what_is_empty_has_a_default():
    found = parse_user(PASSWD, GROUP, "bare")
    assert (found.home, found.shell, found.groups) == ("/", "/bin/sh", (9,))


@pytest.mark.parametrize("name", ["broken", "short", "nobody", "", "-1", "one"])
def test_what_is_no_user(name):
    assert parse_user(PASSWD, GROUP, name) is None
