"""Fixtures for tests that run the command: trees, names of machines, the command itself."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
COMMAND = ("/usr/bin/python3", "-SI", f"{REPOSITORY}/packaging/pymachine")

# `python -m pytest` has it from the current directory; `pytest` from another has not.
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

# Under nohup(1), and in the background of a shell, all our children would ignore these, as what is
# tested does then on purpose.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)
_reaper = pytest.StashKey[int]()


def pytest_collection_finish(session):
    """Stand apart from the machine's other doings, if there is a test that is to leave nothing.

    Here, because a process that is forked during a test has lost pytest's watchdog thread.
    """
    if os.geteuid() != 0 or not any("leaves_nothing" in i.fixturenames for i in session.items):
        return
    from tests.hosts import apart

    session.config.stash[_reaper] = apart.become_child_of_a_reaper()
    if not apart.systemd_runs():  # whose units would not see what we mount
        apart.private_mounts()
        apart.private_state()


@pytest.fixture(scope="session")
def reaper(request):
    """The process below which all processes are of the tests; None without root."""
    return request.config.stash.get(_reaper, None)


@pytest.fixture
def leaves_nothing(reaper, tmp_path_factory):
    """Fail a test that leaves anything of a machine behind."""
    if reaper is None:
        yield
        return
    from tests.integration import leaks

    ours = str(tmp_path_factory.getbasetemp())
    before = leaks.snapshot(reaper, ours)
    yield
    left = leaks.leaked(before, reaper, ours)
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def pymachine():
    """Run the command as a user would; keywords are those of `subprocess.run`.

    Output is captured as text unless told otherwise, and standard input is empty.
    """

    def run(*arguments, **keywords):
        settings = {"timeout": 60, "text": True}
        if "input" not in keywords:
            settings["stdin"] = subprocess.DEVNULL
        if not {"stdout", "stderr"} & keywords.keys():
            settings["capture_output"] = True
        settings |= keywords
        check = settings.pop("check", False)
        return subprocess.run([*COMMAND, *map(str, arguments)], check=check, **settings)

    run.command = lambda *arguments: [*COMMAND, *map(str, arguments)]
    return run


@pytest.fixture(scope="session")
def manager():
    """The cgroup manager that this host has: "systemd" or "embedded"."""
    from tests.hosts.apart import systemd_runs

    return "systemd" if systemd_runs() else "embedded"


@pytest.fixture(scope="session")
def pristine_tree():
    """A Debian tree with systemd, which nobody writes to."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    given = os.environ.get("PYMACHINE_TEST_TREE")
    if given:
        return Path(given)
    from tests.hosts.trees import build

    return build("machine")


@pytest.fixture
def tree(pristine_tree):
    """A Debian tree with systemd, writable, for this test alone."""
    from tests.hosts.overlay import private_copy

    with private_copy(pristine_tree) as root:
        yield root


@pytest.fixture(params=["bookworm", "trixie"])
def each_tree(request):
    """A tree of each Debian that machines are tested with; writable, for this test alone."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    from tests.hosts.overlay import private_copy
    from tests.hosts.trees import build

    with private_copy(build("machine", request.param)) as root:
        yield root


@pytest.fixture
def machine(pymachine):
    """A name for a machine; what still runs by that name at the end is terminated."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    yield name
    if os.path.exists(f"/run/pymachine/machines/{name}"):
        ended = pymachine("terminate", name)
        # Of one whose supervisor a test has killed, the verb removes what is left, and says so.
        left = os.path.exists(f"/run/pymachine/machines/{name}")
        assert ended.returncode == 0 or not left, ended.stderr
