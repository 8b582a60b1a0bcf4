"""The init wrapper executes nothing when it is alone."""

from __future__ import annotations

import os

import pytest

from machinectl_py.plan.context import Context, Hooks
from machinectl_py.plan.step import Plan, Step
from machinectl_py.runtime.init_wrapper import become_init
from machinectl_py.runtime.walk import Peer, Walk


class Execute(Step):
    """Stand for the payload's execve."""

    name = "execute"
    path: str

    def describe(self):
        return "touch"

    def apply(self, context):  # noqa: ARG002 - as of steps
        with open(self.path, "w", encoding="utf-8"):
            os._exit(0)


@pytest.mark.parametrize("supervised", [True, False])
def test_a_supervisor_that_died_first_is_noticed_before_the_payload(tmp_path, supervised):
    ours, theirs = Peer.pair()
    if not supervised:
        ours.close()
    walk = Walk(Plan(steps=(Execute(path=str(tmp_path / "ran")),)), Context(Hooks()), ())
    child = os.fork()
    if child == 0:
        become_init(walk, theirs)
    theirs.close()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert (code, (tmp_path / "ran").exists()) == ((0, True) if supervised else (1, False))
    ours.close()
