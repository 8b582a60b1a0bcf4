"""A verb costs its own imports only: what the hot verbs load is an allow-list."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HOT = ("boot", "run", "exec", "shell", "list", "status")

# Besides what the bare interpreter has loaded: `os` and what it needs, and modules written in C
# or so small that they cost less than a millisecond.
ALLOWED = {
    *("__future__", "_collections_abc", "_stat", "genericpath", "os", "os.path", "posixpath"),
    *("stat", "types", "_json", "_struct", "struct", "_ctypes", "ctypes", "ctypes._endian"),
    *("_signal", "_socket", "errno", "fcntl", "select", "math", "pwd", "grp", "resource"),
    *("termios", "array", "atexit", "gc", "_posixsubprocess"),
}
HEAVY = ("argparse", "asyncio", "dataclasses", "dbus_next", "enum", "inspect", "json", "logging")
HEAVY += ("pathlib", "pyroute2", "pyseccomp", "pystemd", "re", "seccomp", "shutil", "signal")
HEAVY += ("socket", "subprocess", "tempfile", "threading", "typing", "uuid")


def loaded(*statements: str) -> set[str]:
    """Return the modules that a fresh interpreter, started as the command is, has at the end."""
    code = "; ".join((f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})", *statements))
    shown = subprocess.run(
        ["/usr/bin/python3", "-SI", "-c", f"{code}; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(shown.stdout.split())


def not_allowed(*statements: str) -> set[str]:
    more = loaded(*statements) - loaded() - ALLOWED
    return {name for name in more if name.partition(".")[0] != "machinectl_py"}


def test_the_allow_list_has_nothing_heavy():
    assert ALLOWED.isdisjoint(HEAVY)


def test_the_check_sees_a_heavy_module():
    assert "re" in not_allowed("import json")


@pytest.mark.parametrize("verb", HOT)
def test_a_hot_verb_imports_nothing_heavy(verb):
    verb_module = f"import machinectl_py.cli.verbs.{verb}"
    assert not_allowed("import machinectl_py.cli.main", verb_module) == set()


def test_a_verb_does_not_load_the_others():
    verbs = "machinectl_py.cli.verbs."
    names = loaded("import machinectl_py.cli.main", f"import {verbs}list")
    assert {name for name in names if name.startswith(verbs)} == {f"{verbs}list"}


@pytest.mark.parametrize("module", ["imports", "exports"])
def test_what_stays_on_this_host_loads_no_network(module):
    names = loaded(f"import machinectl_py.images.transfer.{module}")
    assert not names & {"http.client", "ssl", "urllib.request", "json", "re"}


@pytest.mark.parametrize("module", ["machinectl_py.kernel.const", "machinectl_py.config.spec"])
def test_ground_and_spec_need_only_the_ground(module):
    names = {name for name in loaded(f"import {module}") if name.startswith("machinectl_py.")}
    assert names <= {
        *("machinectl_py.kernel", "machinectl_py.kernel.const", "machinectl_py.record"),
        *("machinectl_py.config", "machinectl_py.config.spec", "machinectl_py.config.label_spec"),
    }
