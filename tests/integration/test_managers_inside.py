"""Inside a machine nothing tells which cgroup manager its cgroup is from."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.hosts.apart import systemd_runs
from tests.hosts.overlay import private_copy
from tests.hosts.trees import build
from tests.peers import inside
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not systemd_runs(), reason="has one cgroup manager alone"),
]

DIFFERENT = (
    # systemd gives a scope the controllers that it manages; we all that there are.
    "content /sys/fs/cgroup/cgroup.controllers",
    # The kernel counts them.
    "proc1 autogroup",
    # How far the init has come with what, and when, is its own.
    "fd *",
    "unit run-credentials-*.mount",
)
IN_A_UNIT = (
    "systemd-run",
    "--quiet",
    "--wait",
    "--collect",
    "--pipe",
    "--setenv=TERM",
    "-pDelegate=yes",
)


@pytest.fixture(params=["bookworm", "trixie"])
def trees(request):
    """Two equal trees."""
    pristine = build("machine", request.param)
    with private_copy(pristine) as one, private_copy(pristine) as other:
        yield one, other


def hold_same(one, other):
    told = [
        f"{name}\n    {first}\n    {second}"
        for name, first, second in inside.differences(one, other)
        if not any(fnmatchcase(name, pattern) for pattern in DIFFERENT)
    ]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("other", ["embedded", "unit"])
def test_a_command_sees_the_same(trees, machine, other):
    for root, manager in zip(trees, ("systemd", other), strict=True):
        inside.prepare(root, boot=False)
        command = inside.pymachine(root, machine, "run", "--pipe", "--", "/bin/sh", "/probe")
        if manager == "unit":
            command = [*IN_A_UNIT, *command]
        chosen = "--keep-unit" if manager == "unit" else f"--cgroup-manager={manager}"
        command.insert(command.index("run") + 1, chosen)
        inside.run(command)
    hold_same(*trees)


def test_a_boot_sees_the_same(trees, machine):
    for root, manager in zip(trees, ("systemd", "embedded"), strict=True):
        inside.prepare(root, boot=True)
        inside.run(inside.pymachine(root, machine, "boot", f"--cgroup-manager={manager}"))
        wait_for(
            lambda: not Path(f"/run/pymachine/machines/{machine}").exists(), patience=inside.TIMEOUT
        )
    hold_same(*trees)
