"""`freeze` and `thaw`: machines that stand still, and what goes on with them meanwhile."""

from __future__ import annotations

import os
import time

import pytest

from tests.integration.test_boot import one_error

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("leaves_nothing"),
]


@pytest.fixture
def frozen(pymachine, tree, machine):
    """A frozen machine, in which something counts."""
    pymachine("boot", "-q", "-D", tree, "-M", machine, check=True)
    count = "(while :; do echo >>/root/count; sleep 0.01; done) >/dev/null 2>&1 &"
    pymachine("exec", machine, "--", "sh", "-c", count, check=True)
    pymachine("freeze", machine, check=True)
    return machine


def counted(tree):
    try:
        return (tree / "root/count").stat().st_size
    except FileNotFoundError:
        return 0


def test_a_frozen_machine_stands_still_until_it_is_thawed(pymachine, frozen, tree):
    before = counted(tree)
    time.sleep(0.2)
    assert counted(tree) == before
    assert pymachine("show", frozen, "-P", "Frozen").stdout == "yes\n"
    assert "frozen" in pymachine("status", frozen).stdout
    assert "is frozen" in one_error(pymachine("exec", frozen, "--", "true"))
    pymachine("resume", frozen, check=True)
    assert pymachine("show", frozen, "-P", "Frozen").stdout == "no\n"
    pymachine("exec", frozen, "--", "true", check=True)


@pytest.mark.parametrize("verb", ["poweroff", "reboot", "terminate"])
def test_a_frozen_machine_can_be_ended(pymachine, frozen, verb):
    pymachine(verb, frozen, check=True)
    assert (frozen in pymachine("list").stdout) == (verb == "reboot")


def test_bad_input_is_one_line(pymachine):
    one_error(pymachine("freeze"), 2)
    assert "no-such" in one_error(pymachine("pause", "no-such"))
