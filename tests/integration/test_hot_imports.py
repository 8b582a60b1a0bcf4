"""What the hot verbs import while they work, late imports and all."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import COMMAND

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# A module's time is a part of every start of every machine.
HEAVY = {"argparse", "asyncio", "dataclasses", "dbus_next", "enum", "inspect", "json", "logging"}
HEAVY |= {"pathlib", "pyroute2", "pyseccomp", "re", "seccomp", "shutil", "signal", "socket"}
HEAVY |= {"subprocess", "tempfile", "threading", "typing", "uuid"}

# What pystemd imports for itself, while systemd works for us.
PYSTEMD = {"dataclasses", "enum", "inspect", "pathlib", "re", "typing"}


@pytest.fixture
def imported_by(manager):
    """Return a function that runs the command and says what heavy modules it imported."""
    heavy = HEAVY - PYSTEMD if manager == "systemd" else HEAVY | {"pystemd"}

    def run(*arguments):
        python, options, stub = COMMAND
        shown = subprocess.run(
            [python, options, "-X", "importtime", stub, *map(str, arguments)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = shown.stderr.splitlines()
        said = [line for line in lines if not line.startswith("import time:")]
        assert shown.returncode == 0, "\n".join(said)
        return {line.rpartition("|")[2].strip() for line in lines} & heavy

    return run


def test_the_check_sees_a_late_import(imported_by):
    assert "json" in imported_by("list", "--json=pretty")


def test_list(imported_by):
    assert imported_by("list") == set()


def test_run(imported_by, pymachine, tree, machine):
    command = ("run", "-D", tree, "-M", machine, "/bin/true")
    assert pymachine(*command).returncode == 0  # compiles the seccomp filter and keeps it
    assert imported_by(*command) == set()


def test_boot_and_the_verbs_of_a_running_machine(imported_by, pymachine, tree, machine):
    assert imported_by("boot", "-D", tree, "-M", machine) == set()
    assert imported_by("exec", machine, "/bin/true") == set()
    assert imported_by("shell", machine, "/bin/true") == set()
    assert imported_by("status", machine) == set()
    assert imported_by("list") == set()
    assert imported_by("poweroff", machine) == set()
