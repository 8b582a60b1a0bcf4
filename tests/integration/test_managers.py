"""The cgroup managers against the kernel and, where it is PID 1, systemd."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machinectl_py.errors import ConflictError, PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.managers import embedded
from machinectl_py.managers.choose import manager_of, systemd_runs
from machinectl_py.plan.ports import CgroupPlace, CgroupRequest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
KINDS = ["embedded", "systemd"] if systemd_runs() else ["embedded"]


@pytest.fixture(params=KINDS)
def manager(request):
    return manager_of(request.param)


@pytest.fixture
def process():
    """Start a process that sleeps, and end it however the test went."""
    started = []

    def start():
        child = subprocess.Popen(["sleep", "1000"])
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def request_of(manager):
    """Make requests of a name of this test; nothing of them stays."""
    made = []

    def make(*pids, slice_name="machine.slice", properties=(), name="pymtest-a.b"):
        request = CgroupRequest(
            name=name,
            slice=slice_name,
            description="Machine of a test",
            root="/",
            pids=pids,
            properties=properties,
        )
        made.append(request)
        return request

    yield make
    for request in made:
        manager.remove(manager.locate(request))


def cgroups():
    root = Path(cgroupfs.find_cgroup2())
    return {str(p) for p in root.rglob("*pymtest*")} | {str(p) for p in root.glob("pymachine")}


def test_a_started_cgroup_holds_the_process_and_is_gone_after_remove(manager, process, request_of):
    before = cgroups()
    child = process()
    place = manager.start(request_of(child.pid))
    assert cgroupfs.directory_of(child.pid) == place.cgroup
    assert cgroupfs.pids(place.cgroup) == (child.pid,)
    manager.remove(place)
    assert child.wait(5) == -9
    assert not os.path.exists(place.cgroup)
    assert cgroups() == before


def test_leaves_and_grandchildren_go_with_the_machine(manager, process, request_of):
    children = [process(), process()]
    place = manager.start(request_of(children[0].pid))
    for path in ("payload", "payload/init.scope", "payload/system.slice", "supervisor"):
        assert cgroupfs.make(f"{place.cgroup}/{path}")
    cgroupfs.move(f"{place.cgroup}/supervisor", children[0].pid)
    cgroupfs.move(f"{place.cgroup}/payload/init.scope", children[1].pid)
    manager.remove(place)
    assert [child.wait(5) for child in children] == [-9, -9]
    assert not os.path.exists(place.cgroup)


def test_remove_of_what_is_gone_does_nothing(manager, process, request_of):
    request = request_of(process().pid)
    place = manager.start(request)
    manager.remove(place)
    manager.remove(place)
    manager.remove(manager.locate(request))


def test_remove_finds_a_start_that_never_answered(manager, process, request_of):
    child = process()
    request = request_of(child.pid)
    place = manager.start(request)
    manager.remove(manager.locate(request))
    assert child.wait(5) == -9
    assert not os.path.exists(place.cgroup)


def test_a_name_in_use_is_refused_and_left_alone(manager, process, request_of):
    child = process()
    place = manager.start(request_of(child.pid))
    with pytest.raises(ConflictError, match="pymtest"):
        manager.start(request_of(process().pid))
    assert cgroupfs.pids(place.cgroup) == (child.pid,)


def test_a_slice_of_its_own(manager, process, request_of):
    before = cgroups()
    place = manager.start(request_of(process().pid, slice_name="pymtest-x.slice"))
    assert "/pymtest.slice/pymtest-x.slice/" in place.cgroup
    manager.remove(place)
    deadline = time.monotonic() + 5
    while cgroups() != before and time.monotonic() < deadline:  # systemd collects slices later
        time.sleep(0.05)
    assert cgroups() == before


def test_an_unknown_property_leaves_nothing(manager, process, request_of):
    before = cgroups()
    child = process()
    home = cgroupfs.directory_of(child.pid)
    with pytest.raises(UnsupportedError, match="NoSuchProperty"):
        manager.start(request_of(child.pid, properties=(("NoSuchProperty", "1"),)))
    assert cgroups() == before
    assert cgroupfs.directory_of(child.pid) == home


def test_a_process_that_does_not_exist_leaves_nothing(manager, process, request_of):
    before = cgroups()
    child = process()
    child.kill()
    child.wait()
    with pytest.raises(PymachineError):
        manager.start(request_of(child.pid))
    assert cgroups() == before


def test_a_hundred_starts_and_stops_in_a_row(manager, process, request_of):
    for _ in range(100):
        child = process()
        place = manager.start(request_of(child.pid))
        assert cgroupfs.pids(place.cgroup) == (child.pid,)
        manager.remove(place)
        assert not os.path.exists(place.cgroup)
        child.wait(5)


def test_a_caller_inside_survives_the_removal_of_its_embedded_cgroup():
    code = (
        "import os; from machinectl_py.managers.embedded import *;"
        "from machinectl_py.plan.ports import CgroupRequest;"
        "m = EmbeddedManager();"
        "r = CgroupRequest(name='pymtest-in', slice='machine.slice', description='', root='/',"
        " pids=(os.getpid(),));"
        "p = m.start(r); m.remove(p); assert not os.path.exists(p.cgroup); print('alive')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert shown.stdout == "alive\n", shown.stderr


def test_controllers_that_cgroup2_lacks_are_told_by_the_embedded_manager(request_of):
    available = cgroupfs.controllers(cgroupfs.find_cgroup2())
    if "memory" in available:
        pytest.skip("this host's cgroup2 has the controller")
    request = request_of(properties=(("MemoryMax", "1G"),))
    with pytest.raises(
        UnsupportedError, match=r"'MemoryMax' needs the cgroup2 controller 'memory'"
    ):
        embedded.EmbeddedManager().start(request)


@pytest.mark.skipif(
    "pids" not in cgroupfs.controllers(cgroupfs.find_cgroup2()), reason="no controller pids"
)
def test_properties_reach_the_kernel(manager, process, request_of):
    place = manager.start(request_of(process().pid, properties=(("TasksMax", "77"),)))
    assert cgroupfs.read(place.cgroup, "pids.max") == "77\n"


def test_wait_empty_sees_the_end_of_the_last_process(process):
    path = f"{cgroupfs.find_cgroup2()}/pymtest-wait"
    cgroupfs.make(path)
    try:
        child = process()
        cgroupfs.move(path, child.pid)
        assert not cgroupfs.wait_empty(path, 0.05)
        cgroupfs.kill(path)
        assert cgroupfs.wait_empty(path, 5)
        assert not cgroupfs.populated(path)
    finally:
        cgroupfs.remove(path)
    assert cgroupfs.wait_empty(path, 1)
    cgroupfs.remove(path)


def test_kill_others_spares_one(process):
    path = f"{cgroupfs.find_cgroup2()}/pymtest-others"
    spared, beside, below = process(), process(), process()
    for leaf, child in (("a", spared), ("a", beside), ("b", below)):
        os.makedirs(f"{path}/{leaf}", exist_ok=True)
        cgroupfs.move(f"{path}/{leaf}", child.pid)
    try:
        cgroupfs.kill_others(path, spared.pid)
        assert beside.wait(5) == below.wait(5) == -9
        assert cgroupfs.pids(path, recursive=True) == (spared.pid,)
    finally:
        cgroupfs.kill(path)
        assert cgroupfs.wait_empty(path, 5)
        cgroupfs.remove(path)


def test_remove_of_a_cgroup_that_lives_tells_busy(process):
    path = f"{cgroupfs.find_cgroup2()}/pymtest-busy"
    cgroupfs.make(path)
    child = process()
    cgroupfs.move(path, child.pid)
    try:
        with pytest.raises(OSError, match="busy"):
            cgroupfs.remove(path, timeout=0.05)
    finally:
        cgroupfs.kill(path)
        assert cgroupfs.wait_empty(path, 5)
        cgroupfs.remove(path)


def test_place_is_a_plain_record(manager, request_of):
    place = manager.locate(request_of())
    assert CgroupPlace.from_data(place.to_data()) == place
