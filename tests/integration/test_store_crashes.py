"""Verbs that change the store, killed or out of room at any moment: as before, or as after."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from machinectl_py.images import machines, snapshots
from machinectl_py.images.fsck import check_store
from machinectl_py.images.machine_view import open_layers, open_machine, open_writable
from machinectl_py.images.records import all_machines, find_machine
from tests.integration import pools
from tests.integration.test_machines_of_images import STORE

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
]

POINTS = 20
SEED = 20261125  # of the points, so that a failure can be looked at again
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
    """Return how many of the calls the verb makes, and the store after it."""
    prepare(verb)
    before = state()
    done = traced(verb, "-ff", "-o", str(tmp_path / "trace"))
    assert done.returncode == 0, done
    main = max(tmp_path.glob("trace.*"), key=lambda path: len(path.read_text().splitlines()))
    return len(main.read_text().splitlines()), before, state()


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
    count, before, after = calls_of(verb, tmp_path)
    points = random.Random(SEED).sample(range(1, count + 1), min(POINTS, count))
    done = set()
    for point in points:
        prepare(verb)
        said = traced(verb, "-e", f"inject={CALLS}:signal=KILL:when={point}", "-o", "/dev/null")
        done.add(hold_whole(verb, before, after, (point, said)))
    assert False in done  # some came before the commit


@pytest.mark.parametrize("verb", VERBS)
def test_without_room_at_any_call_the_store_is_whole(store, verb, tmp_path):
    count, before, after = calls_of(verb, tmp_path)
    for point in random.Random(SEED + 1).sample(range(1, count + 1), min(POINTS, count)):
        prepare(verb)
        said = traced(verb, "-e", f"inject={CALLS}:error=ENOSPC:when={point}", "-o", "/dev/null")
        assert "Traceback" not in said.stderr
        assert "Internal error" not in said.stderr
        came_through = hold_whole(verb, before, after, (point, said))
        if said.returncode == 0:
            assert came_through, (point, said)


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
