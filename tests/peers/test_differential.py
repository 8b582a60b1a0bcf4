"""The same command line, given to systemd-nspawn and to `pymachine nspawn`, comes to the same."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import COMMAND
from tests.hosts.apart import systemd_runs
from tests.hosts.overlay import private_copy
from tests.hosts.trees import build
from tests.peers.cases import PRELUDE, all_cases

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
# In what is said: differences that have a reason which holds for many cases.
_ON_PURPOSE = {
    # CVE-2022-24769: docs/design/inside.md.
    "CapInh": ("CapInh:",),
    # A read-only view from outside, where systemd-nspawn 252 has a tmpfs: docs/design/inside.md.
    "sysfs": ("/sys ",),
    # What is inaccessible is in no way executable either.
    "stricter": ("tmpfs",),
}
# Where systemd-nspawn cannot do what we can: give a user namespace inside a machine its own proc,
# hide a path on a host whose PID 1 has not made the nodes for it, and bind a journal on an overlay.
_ITS_FAILURES = (
    "Failed to mount proc (type proc)",
    "Failed to mount /run/systemd/inaccessible/",
    "Failed to map ids for bind mount",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two equal trees, each with an equal directory of the host to be bound."""
    sources = [_source(tmp_path_factory.mktemp("sources") / "source") for _ in range(2)]
    pristine = build("machine")
    with private_copy(pristine) as one, private_copy(pristine) as other:
        yield (one, sources[0]), (other, sources[1])


def _source(source):
    source.mkdir()
    (source / "file").write_text("content\n")
    for name in ("lower", "upper", "upper2", "co:lon", "deep"):
        (source / name).mkdir()
    (source / "lower/low").touch()
    (source / "upper/up").touch()
    (source / "co:lon/in").write_text("colon\n")
    return source


def run(words, place, name, options, script):
    """Run a case to its end."""
    root, source = place
    options = [word.replace("SOURCE", str(source)) for word in options]
    script = script.replace("SOURCE", str(source))
    text, command = "", []
    if script.startswith("STDIN "):
        text = f"{script[6:]}\n"
    elif script:
        command = ["/bin/sh", "-c", PRELUDE + script]
    console = [] if any(word.startswith("--console") for word in options) else ["--console=pipe"]
    return subprocess.run(
        [*words, "-D", root, "-M", name, *console, *options, *command],
        check=False,
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        env=os.environ | {"FROM_CALLER": "yes", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
    )


def said(done, place, why):
    text = done.stdout.replace(str(place[0]), "ROOT").replace(str(place[1].parent), "SOURCES")
    # Nothing comes in from the host but by the tunnel; systemd-nspawn 255 and later do the same.
    lines = text.replace("\r", "").replace(" master ]", " ]").splitlines()
    hidden = _ON_PURPOSE.get(why, ())
    return [line for line in lines if not any(word in line for word in hidden)]


CASES = all_cases()


def test_there_are_enough_cases():
    assert len(CASES) >= 120
    assert len({name for name, *_ in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_both_come_to_the_same(world, machine, case):
    one, other = world
    name, options, script, why = case
    alone = [] if systemd_runs() else ["--register=no", "--keep-unit"]
    theirs = run(["systemd-nspawn", "--quiet", *alone], one, machine, options, script)
    ours = run([*COMMAND, "nspawn", "--quiet"], other, machine, options, script)
    told = f"\n{name}: {options}\nours: {ours.stderr}\ntheirs: {theirs.stderr}"
    assert "Traceback" not in ours.stderr
    if theirs.returncode and any(line in theirs.stderr for line in _ITS_FAILURES):
        assert ours.returncode == 0, told
        return
    same = ours.returncode == theirs.returncode and said(ours, other, "") == said(theirs, one, "")
    if why not in ("", *_ON_PURPOSE):
        assert not same, f"{name}: we do not differ, although it is said that {why}"
        return
    assert ours.returncode == theirs.returncode, told
    assert said(ours, other, why) == said(theirs, one, why), told
