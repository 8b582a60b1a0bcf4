"""Verbs that change the store, killed or out of room at any moment: as before, or as after."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from machinectl_py.images import machines, snapshots
from machinectl_py.images.fsck import check_store
from machinectl_py.images.machine_view import open_layers, open_machine, open_writable
from machinectl_py.images.records import all_machines, find_machine
from tests.integration import pools
from tests.integration.test_machines_of_images import STORE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MOMENTS = 20
SEED = 20261125  # of them, so that a failure can be looked at again
# All that can change the store, or fail for want of room.
CALLS = (
    "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,write,ioctl,chown,chmod,"
    "setxattr,mount,fsopen,fsmount,move_mount,open_tree,flock,clone3"
)
VERBS = {
    "clone": ("clone", "web", "db"),
    "snapshot": ("snapshot", "web", "two"),
    "rollback": ("rollback", "web", "one"),
    "remove": ("remove", "victim"),
}


@pytest.fixture
def leaves_nothing():
    """What stays in the pool from one test to the next goes with it."""


@pytest.fixture(scope="module", params=["ext4", "btrfs", "xfs"])
def store(request, tmp_path_factory):
    """A file system with a small image, the machine `web` of it and a snapshot."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "etc").mkdir()
    (tree / "etc/os-release").write_text("ID=test\n")
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tree / "own").write_text("0")
    try:
        with pools.pool(request.param, megabytes=400):
            pools.put_image(tree, "small", request.param)
            machines.create("small", "web")
            write("web", "1")
            snapshots.take("web", "one")
            write("web", "2")
            yield request.param
    except pools.NoLoops as error:
        pytest.skip(str(error))


def write(name, text):
    """Change a machine, as if it had run."""
    with open_writable(find_machine(name)) as root:
        Path(root, "own").write_text(text)


def read(view):
    with view as root:
        return Path(root, "own").read_text()


def state():
    """Return what each machine, and each of its snapshots, holds."""
    return {
        machine.name: (
            read(open_machine(machine)),
            *((one.tag, read(open_layers(machine, one.layers))) for one in machine.snapshots),
        )
        for machine in all_machines()
    }


def prepare(verb):
    """Bring the store to where the verb can be tried again."""
    if find_machine("db"):
        machines.remove_machine("db")
    if any(one.tag == "two" for one in find_machine("web").snapshots):
        snapshots.forget("web", "two")
    if verb == "remove" and not find_machine("victim"):
        machines.clone("web", "victim")
        write("victim", "3")
    write("web", "2")


def traced(verb, *options):
    command = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", *options]
    python = ("/usr/bin/python3", "-SI", f"{Path(__file__).parents[2]}/packaging/pymachine")
    return subprocess.run(
        [*command, *python, *VERBS[verb]], check=False, capture_output=True, text=True, timeout=60
    )


def calls_of(verb, tmp_path):
    """Return the calls that the verb makes (name, which of that name), and the store around it."""
    prepare(verb)
    before = state()
    done = traced(verb, "-ff", "-o", str(tmp_path / "trace"))
    assert done.returncode == 0, done
    found = set()
    for trace in tmp_path.glob("trace.*"):  # of the verb, and of its children
        counts = Counter()
        for line in trace.read_text().splitlines():
            name = line.partition("(")[0]
            counts[name] += 1
            if not any(harmless in line for harmless in ("TCGETS", "FIOCLEX", "---", "+++")):
                found.add((name, counts[name]))
    # Of a tree's removal the first calls are like the others.
    points = [point for point in sorted(found) if point[0] != "unlinkat" or point[1] <= 3]
    return points, before, state()


def hold_whole(verb, before, after, said):
    """Hold that the store is as before or as after, and nothing else is left once it is mended."""
    check_store(mend=True)
    assert check_store(mend=False) == (), (verb, said)
    now = state()
    assert now in (before, after), (verb, said)
    named = {layer for machine in all_machines() for layer in machine.references()}
    assert set(os.listdir(STORE / "layers")) == named
    return now == after


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_call_the_store_is_whole(store, verb, tmp_path):
    points, before, after = calls_of(verb, tmp_path)
    done = set()
    for name, when in points:
        prepare(verb)
        said = traced(verb, "-e", f"inject={name}:signal=KILL:when={when}", "-o", "/dev/null")
        done.add(hold_whole(verb, before, after, (name, when, said)))
    assert False in done  # some came before the commit


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_moment_the_store_is_whole(store, verb, pymachine):
    prepare(verb)
    before = state()
    begun = time.monotonic()
    assert pymachine(*VERBS[verb]).returncode == 0
    taken, after = time.monotonic() - begun, state()
    moments = random.Random(SEED)
    for _ in range(MOMENTS):
        prepare(verb)
        process = subprocess.Popen(pymachine.command(*VERBS[verb]), stderr=subprocess.PIPE)
        time.sleep(moments.uniform(taken / 3, taken))  # before, it only imports
        process.kill()
        said = process.communicate()
        hold_whole(verb, before, after, said)


@pytest.mark.parametrize("verb", VERBS)
def test_without_room_at_any_call_the_store_is_whole(store, verb, tmp_path):
    points, before, after = calls_of(verb, tmp_path)
    failed = 0
    for name, when in points:
        prepare(verb)
        said = traced(verb, "-e", f"inject={name}:error=ENOSPC:when={when}", "-o", "/dev/null")
        came_through = hold_whole(verb, before, after, (name, when, said))
        assert came_through or said.returncode, (name, when, said)
        if said.returncode:
            failed += 1
            lines = said.stderr.splitlines()
            assert lines[0].startswith("pymachine: "), (name, when, said)
            assert "Internal error" not in lines[0], (name, when, said)
            assert len(lines) <= 2, (name, when, said)
    assert failed >= 3, points


def test_a_disk_that_is_full_loses_nothing(store):
    prepare("remove")
    before = state()
    filler = STORE / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(bytes(size)):
                        os.fsync(file.fileno())
                except OSError:  # not even so much
                    continue
        for verb in ("clone", "snapshot", "rollback"):
            said = subprocess.run(
                ["/usr/bin/python3", "-SI", "packaging/pymachine", *VERBS[verb]],
                check=False,
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            if said.returncode:
                assert len(said.stderr.splitlines()) <= 2, said
                assert "No space" in said.stderr or "Disk quota" in said.stderr, said
                assert state() == before
            else:  # the file system kept something back
                prepare("remove")
        # What is full can be freed.
        machines.remove_machine("victim")
        assert "victim" not in state()
    finally:
        filler.unlink()
    assert check_store(mend=True) == ()
