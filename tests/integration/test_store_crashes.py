"""Verbs that change the store, killed or out of room at any moment: as before, or as after."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from machinectl_py.images import machines, snapshots
from machinectl_py.images.aside import lock_path
from machinectl_py.images.fsck import check_store
from machinectl_py.images.machine_view import open_layers, open_machine, open_writable
from machinectl_py.images.records import all_machines, find_machine
from machinectl_py.kernel.locks import is_locked
from tests.integration import pools
from tests.integration.test_machines_of_images import STORE
from tests.integration.transfers import MACHINES, own_cache

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MOMENTS = 20
SEED = 20261125  # of them, so that a failure can be looked at again
LEFT = 4 << 20  # bytes, on a disk that is nearly full
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
        # Room that btrfs has given to data is none for metadata, unless both are mixed.
        make = ("--mixed",) if request.param == "btrfs" else ()
        with pools.pool(request.param, megabytes=400, make=make):
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


@pytest.fixture
def nearly_full(store):
    """Leave a few megabytes; give what fills them but for some bytes."""
    bulk, rest, spare = STORE / "bulk", STORE / "rest", STORE / "spare"
    with bulk.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, available(LEFT) - LEFT)

    @contextmanager
    def full(left):
        spare.write_bytes(bytes(left))  # a full btrfs can remove a file, but not shorten one
        os.sync()
        with rest.open("wb", buffering=0) as file:
            for size in (1 << 18, 1 << 12):
                try:
                    while file.write(bytes(size)):
                        os.fsync(file.fileno())
                except OSError:  # not even so much
                    continue
        spare.unlink()
        try:
            yield
        finally:
            rest.unlink()
            os.sync()

    yield full
    bulk.unlink()
    os.sync()


@pytest.mark.parametrize("verb", VERBS)
def test_on_a_disk_that_is_nearly_full_the_store_is_whole(nearly_full, verb, pymachine):
    prepare(verb)
    before = state()
    assert pymachine(*VERBS[verb]).returncode == 0
    after = state()
    moments = random.Random(SEED)
    for number in range(MOMENTS):
        prepare(verb)
        with nearly_full(moments.randrange(number + 1) << 12):
            said = pymachine(*VERBS[verb])
        came_through = hold_whole(verb, before, after, said)
        assert came_through or said.returncode, said
        if said.returncode:
            assert len(said.stderr.splitlines()) <= 2, said
            assert "o space" in said.stderr or "Disk quota" in said.stderr, said


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


SIZE = 20  # MB of random bytes in the archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive that takes a moment, of many files."""
    directory = tmp_path_factory.mktemp("archive")
    tree = directory / "tree"
    (tree / "etc").mkdir(parents=True)
    for number in range(SIZE * 10):
        (tree / f"etc/{number:04}").write_bytes(os.urandom(100_000))
    subprocess.run(["tar", "-C", tree, "-cf", directory / "made.tar", "."], check=True)
    return directory / "made.tar"


@pytest.fixture(params=["import", "pull"])
def fetch(request, archive):
    """Give the words that make the image `made` of the archive."""
    with own_cache():
        yield {
            "import": ("import-tar", archive, "made"),
            "pull": ("pull-tar", f"file://{archive}", "made", "--verify=no"),
        }[request.param]


def files_of(tree):
    return {path.name: path.read_bytes() for path in Path(tree, "etc").iterdir()}


def hold_made_or_not(archive, said):
    """Hold that the image is whole, or not there at all; remove it; say whether it was there."""
    until_free("made")
    check_store(mend=True)
    assert check_store(mend=False) == (), said
    assert set(os.listdir(MACHINES)) <= {"small", "made"}, said
    made = (MACHINES / "made").exists()
    if made:
        assert files_of(MACHINES / "made") == files_of(archive.parent / "tree"), said
        subprocess.run(["rm", "-r", MACHINES / "made"], check=True)
    return made


def until_free(name):
    """Wait until all who worked on an image have let it go."""
    deadline = time.monotonic() + 10
    while is_locked(lock_path(name)):
        assert time.monotonic() < deadline, "a program outlived the verb"
        time.sleep(0.005)


def test_an_image_fetched_and_killed_is_whole_or_not_there(store, fetch, archive, pymachine):
    begun = time.monotonic()
    assert pymachine(*fetch).returncode == 0
    taken = time.monotonic() - begun
    assert hold_made_or_not(archive, "at first")
    moments, killed = random.Random(SEED), 0
    for number in range(MOMENTS):
        process = subprocess.Popen(
            pymachine.command(*fetch), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        time.sleep(taken * (number + moments.random()) / MOMENTS)
        process.kill()
        said = process.communicate()
        killed += process.returncode == -signal.SIGKILL
        hold_made_or_not(archive, said)
    assert killed > MOMENTS // 2


def available(least):
    """Return the bytes that are free, which are more than `least`, with nothing still to free."""
    kind = subprocess.check_output(("stat", "--file-system", "--format=%T", STORE), text=True)
    deadline = time.monotonic() + 40
    if kind.strip() == "btrfs":
        # It frees what removed subvolumes held every 30 s; its own sync wakes who does that.
        while True:
            subprocess.run(("btrfs", "filesystem", "sync", STORE), check=True, capture_output=True)
            if not subprocess.check_output(("btrfs", "subvolume", "list", "-d", STORE)):
                break
            assert time.monotonic() < deadline, "removed subvolumes are still there"
            time.sleep(0.05)
    while True:
        os.sync()
        room = os.statvfs(STORE)
        if room.f_bavail * room.f_frsize > least:
            return room.f_bavail * room.f_frsize
        assert time.monotonic() < deadline, "the disk is full"
        time.sleep(0.05)


def test_an_image_fetched_without_room_is_not_there(store, fetch, archive, pymachine):
    moments, failed = random.Random(SEED), 0
    filler = MACHINES.parent / f"{STORE.name}/filler"
    for number in range(MOMENTS):
        reserve = os.statvfs(STORE).f_blocks * os.statvfs(STORE).f_frsize // 20
        left = reserve + int((SIZE << 20) * (number + moments.random()) / MOMENTS)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, available(left) - left)
        try:
            done = pymachine(*fetch)
        finally:
            filler.unlink()
        if done.returncode:
            failed += 1
            assert "no space left" in done.stderr, done
            assert not hold_made_or_not(archive, done), done
        else:
            assert hold_made_or_not(archive, done), done
    assert failed > MOMENTS // 2


@pytest.fixture
def large(store):
    """A machine whose copy takes a moment."""
    if store == "btrfs":
        pytest.skip("a snapshot there, which takes none")
    if not find_machine("large"):
        machines.create("small", "large")
        with open_writable(find_machine("large")) as root:
            for number in range(20_000):
                Path(root, f"{number:05}").touch()


def committing(pymachine):
    """Begin to commit the machine; return when the copy is under way."""
    process = subprocess.Popen(
        pymachine.command("commit", "large", "made"), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 10
    while not (MACHINES / ".#made.new/00100").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process


def test_a_killed_commit_leaves_nobody_who_writes(large, pymachine):
    process = committing(pymachine)
    process.kill()
    process.communicate()
    until_free("made")
    left = sorted(os.listdir(MACHINES / ".#made.new"))
    assert len(left) < 20_000
    time.sleep(0.2)
    assert sorted(os.listdir(MACHINES / ".#made.new")) == left
    check_store(mend=True)
    assert os.listdir(MACHINES) == ["small"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_commit_leaves_nothing(large, pymachine, number):
    process = committing(pymachine)
    process.send_signal(number)
    error = process.communicate(timeout=10)[1]
    assert process.returncode == 1
    assert f"Interrupted by {number.name}" in error
    assert os.listdir(MACHINES) == ["small"]
