"""The cgroup managers against the kernel and, where it is PID 1, systemd."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from machinectl_py.errors import ConflictError, PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.managers import embedded
from machinectl_py.managers.choose import has_machined, manager_of, systemd_runs
from machinectl_py.managers.machined import MachinedRegistrar
from machinectl_py.managers.systemd import escape, unit_name
from machinectl_py.plan.ports import CgroupPlace, CgroupRequest, RegisterRequest
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
# Properties that systemd 252 has not.
LATER = ("MemoryPressureWatch", "MemoryZSwapWriteback")
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


def systemd_version() -> int:
    text = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True)
    return int(text.stdout.split()[1].partition(".")[0])


def cgroups():
    """Return the cgroups of these tests, and our own one if it was left empty."""
    root = Path(cgroupfs.find_cgroup2())
    empty = {str(own) for own in root.glob("pymachine") if not cgroupfs.children(str(own))}
    return {str(path) for path in root.rglob("*pymtest*")} | empty


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
    assert not os.path.exists(place.cgroup)
    if manager.name == "systemd":  # a slice stays until it is stopped
        subprocess.run(["systemctl", "stop", "pymtest.slice"], check=True)
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


def test_all_controllers_are_delegated(manager, process, request_of):
    available = cgroupfs.controllers(cgroupfs.find_cgroup2())
    place = manager.start(request_of(process().pid))
    missing = set(available) - set(cgroupfs.controllers(place.cgroup))
    assert missing <= {"hugetlb", "misc", "rdma", "dmem"}, "those that systemd does not know"
    cgroupfs.make(f"{place.cgroup}/payload")
    handed = cgroupfs.enable_all(place.cgroup)
    assert set(cgroupfs.controllers(f"{place.cgroup}/payload")) == set(handed)


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


@pytest.mark.skipif(not systemd_runs(), reason="needs systemd")
class TestSystemd:
    """What only the systemd manager does."""

    @pytest.fixture
    def manager(self):
        return manager_of("systemd")

    def show(self, unit, *names):
        argv = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
        text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        shown = {}
        for line in text.splitlines():
            name, _, value = line.partition("=")
            shown[name] = f"{shown[name]}\n{value}" if name in shown else value
        return shown

    def test_the_scope_is_as_systemd_nspawn_makes_it(self, manager, process, request_of):
        place = manager.start(request_of(process().pid))
        assert place.unit == r"machine-pymtest\x2da.b.scope"
        assert self.show(
            place.unit, "Delegate", "Slice", "TasksMax", "DevicePolicy", "Description", "KillSignal"
        ) == {
            "Delegate": "yes",
            "Slice": "machine.slice",
            "TasksMax": "16384",
            "DevicePolicy": "closed",
            "Description": "Machine of a test",
            "KillSignal": "23",
        }

    @pytest.mark.parametrize(
        ("name", "text", "shown"),
        [
            ("StartupCPUWeight", "200", None),
            ("CPUQuotaPeriodSec", "20ms", ("CPUQuotaPeriodUSec", "20ms")),
            ("MemoryMin", "1M", ("MemoryMin", "1048576")),
            ("DefaultMemoryLow", "4096", None),
            ("StartupAllowedCPUs", "0", None),
            ("IOWeight", "70", None),
            (
                "IODeviceLatencyTargetSec",
                "/dev/null 25ms",
                ("IODeviceLatencyTargetUSec", "/dev/null 25ms"),
            ),
            ("DisableControllers", "io", None),
            ("SocketBindDeny", "ipv4:tcp:80-89", ("SocketBindDeny", "ipv4:tcp80-89")),
            ("SocketBindAllow", "any", None),
            ("RestrictNetworkInterfaces", "~none0", None),
            ("BPFProgram", "egress:/sys/fs/bpf/none", None),
            ("ManagedOOMPreference", "avoid", None),
            (
                "ManagedOOMMemoryPressureLimit",
                "50%",
                ("ManagedOOMMemoryPressureLimit", "2147483647"),
            ),
            ("FinalKillSignal", "SIGABRT", ("FinalKillSignal", "6")),
            ("SendSIGHUP", "yes", None),
            ("RuntimeRandomizedExtraSec", "3s", ("RuntimeRandomizedExtraUSec", "3s")),
            ("OOMPolicy", "continue", None),
            ("Documentation", "man:pymachine(1)", None),
            ("JobRunningTimeoutSec", "1min 30s", ("JobRunningTimeoutUSec", "1min 30s")),
            ("CollectMode", "inactive-or-failed", None),
            ("MemoryPressureWatch", "on", ("MemoryPressureWatch", "yes")),
            ("MemoryZSwapWriteback", "no", None),
        ],
    )
    def test_a_property_is_shown_as_it_was_given(
        self, manager, process, request_of, name, text, shown
    ):
        if name in LATER and systemd_version() < 257:
            pytest.skip(f"this systemd has no {name}")
        place = manager.start(request_of(process().pid, properties=((name, text),)))
        shown_name, value = shown or (name, text)
        assert value in self.show(place.unit, shown_name)[shown_name]

    @pytest.fixture
    def device(self):
        """Make a node of a device that the kernel has no driver for."""
        node = Path("/dev/pymtest")
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(60, 1))  # local and experimental use
        try:
            with pytest.raises(OSError, match="pymtest") as caught:
                node.open("rb")
            if caught.value.errno != errno.ENXIO:
                pytest.skip("this host keeps devices from us")
            yield node
        finally:
            node.unlink()

    @pytest.mark.parametrize(
        ("properties", "expected"),
        [
            ((), errno.EPERM),
            ((("DeviceAllow", "/dev/pymtest r"),), errno.ENXIO),
            ((("DeviceAllow", "/dev/pymtest w"),), errno.EPERM),
            ((("DeviceAllow", ""), ("DevicePolicy", "auto")), errno.ENXIO),
        ],
    )
    def test_devices_are_kept_from_the_scope(
        self, manager, request_of, device, properties, expected
    ):
        code = f"""
import os
input()
try:
    os.open({str(device)!r}, os.O_RDONLY)
except OSError as error:
    print(error.errno)
"""
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
            manager.start(request_of(child.pid, properties=properties))
            said, _ = child.communicate(b"\n", timeout=20)
        assert int(said) == expected

    def test_properties_mean_what_systemctl_says(self, manager, process, request_of):
        properties = (
            ("MemoryMax", "1G"),
            ("CPUQuota", "150%"),
            ("CPUWeight", "50"),
            ("AllowedCPUs", "0-2,9"),
            ("IPAddressDeny", "any"),
            ("IPAddressAllow", "localhost 10.0.0.0/8"),
            ("DeviceAllow", "/dev/fuse rw"),
            ("IOReadBandwidthMax", "/dev/null 10M"),
            ("TasksMax", "infinity"),
            ("TimeoutStopSec", "1min 30s"),
            ("After", "dbus.service"),
            ("MemoryAccounting", "no"),
            ("KillMode", "mixed"),
            ("Description", "Another"),
        )
        place = manager.start(request_of(process().pid, properties=properties))
        shown = self.show(
            place.unit, *(name for name, _ in properties), "CPUQuotaPerSecUSec", "TimeoutStopUSec"
        )
        assert shown["MemoryMax"] == str(1 << 30)
        assert shown["CPUQuotaPerSecUSec"] == "1.500000s"
        assert shown["CPUWeight"] == "50"
        assert shown["AllowedCPUs"] == "0-2 9"
        assert set(shown["IPAddressDeny"].split()) == {"0.0.0.0/0", "::/0"}
        assert set(shown["IPAddressAllow"].split()) == {"127.0.0.0/8", "::1/128", "10.0.0.0/8"}
        assert "/dev/fuse rw" in shown["DeviceAllow"]
        assert shown["IOReadBandwidthMax"] == "/dev/null 10000000"
        assert shown["TasksMax"] == "infinity"
        assert shown["TimeoutStopUSec"] == "1min 30s"
        assert "dbus.service" in shown["After"]
        assert shown["MemoryAccounting"] == "no"
        assert shown["KillMode"] == "mixed"
        assert shown["Description"] == "Another"

    def test_names_are_escaped_as_by_systemd_escape(self):
        for name in ("a-b", "a.b", "a_b:c", "x\\y", "ä", ".hidden"):
            argv = ["systemd-escape", "--", name]
            expected = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            assert escape(name) == expected.strip()

    def test_systemd_refusing_is_told_in_its_own_words(self, manager, process, request_of):
        with pytest.raises(PymachineError, match=r"Failed to start machine-.*(?i:device)"):
            manager.start(request_of(process().pid, properties=(("DeviceAllow", "nonsense rw"),)))

    def test_a_scope_that_failed_before_is_cleared(self, manager, process, request_of):
        unit = unit_name("pymtest-a.b")
        child = process()
        argv = [
            "busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit,
            "fail", "2", "PIDs", "au", "1", str(child.pid), "RuntimeMaxUSec", "t", "100000", "0",
        ]  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True)
        wait_for(lambda: self.show(unit, "ActiveState")["ActiveState"] == "failed")
        place = manager.start(request_of(process().pid))
        assert self.show(place.unit, "ActiveState")["ActiveState"] == "active"

    def test_a_scope_that_is_stopping_is_waited_for(self, manager, process, request_of):
        child = process()
        place = manager.start(request_of(child.pid, properties=(("TimeoutStopSec", "1"),)))
        subprocess.run(["systemctl", "stop", "--no-block", place.unit], check=True)
        assert self.show(place.unit, "ActiveState")["ActiveState"] == "deactivating"
        again = manager.start(request_of(process().pid))
        assert child.wait(1) == -9
        assert cgroupfs.populated(again.cgroup)

    def test_a_caller_inside_is_spared_and_the_scope_goes_with_it(self):
        code = (
            "import os, subprocess; from machinectl_py.managers.systemd import *;"
            "from machinectl_py.plan.ports import CgroupRequest;"
            "m = SystemdManager(); child = subprocess.Popen(['sleep', '1000']);"
            "r = CgroupRequest(name='pymtest-in', slice='machine.slice', description='', root='/',"
            " pids=(os.getpid(), child.pid));"
            "p = m.start(r); m.remove(p); assert child.wait(5) == -9; print(p.unit, p.cgroup)"
        )
        argv = [sys.executable, "-c", code]
        shown = subprocess.run(argv, check=False, capture_output=True, text=True)
        unit, cgroup = shown.stdout.split()
        wait_for(lambda: self.show(unit, "LoadState", "ActiveState")["ActiveState"] == "inactive")
        assert not os.path.exists(cgroup)

    def test_signals_do_not_disturb_a_start(self, manager, process, request_of):
        handled = []
        before = signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(20):
                child = process()
                place = manager.start(request_of(child.pid))
                assert cgroupfs.directory_of(child.pid) == place.cgroup
                manager.remove(place)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert handled

    def test_a_reexecuted_systemd_still_has_the_scope(self, manager, process, request_of):
        place = manager.start(request_of(process().pid))
        subprocess.run(["systemctl", "daemon-reexec"], check=True)
        assert self.show(place.unit, "ActiveState", "Delegate") == {
            "ActiveState": "active",
            "Delegate": "yes",
        }
        manager.remove(place)
        assert not os.path.exists(place.cgroup)

    def test_starts_during_reexecution_succeed(self, manager, process, request_of):
        reexec = subprocess.Popen(["systemctl", "daemon-reexec"])
        try:
            for _ in range(20):
                child = process()
                place = manager.start(request_of(child.pid))
                assert cgroupfs.directory_of(child.pid) == place.cgroup
                manager.remove(place)
                assert not os.path.exists(place.cgroup)
        finally:
            assert reexec.wait(60) == 0


@pytest.mark.skipif(not systemd_runs(), reason="needs systemd")
class TestUnit:
    """The manager of --keep-unit, inside of units that systemd-run makes."""

    CODE = (
        "import os, subprocess; from machinectl_py.kernel import cgroupfs;"
        "from machinectl_py.managers.unit import UnitManager;"
        "from machinectl_py.plan.ports import CgroupRequest;"
        "m = UnitManager();"
        "r = CgroupRequest(name='pymtest', slice='machine.slice', description='', root='/',"
        " pids=());"
        "p = m.start(r); [cgroupfs.make(p.cgroup + '/' + n) for n in ('supervisor', 'payload')];"
        "cgroupfs.move(p.cgroup + '/supervisor', os.getpid());"
        "child = subprocess.Popen(['sleep', '1000']);"
        "cgroupfs.move(p.cgroup + '/payload', child.pid);"
        "assert m.start is not None; m.remove(p); assert child.wait(5) == -9;"
        "assert not os.path.exists(p.cgroup + '/payload');"
        "assert cgroupfs.directory_of(os.getpid()) == p.cgroup + '/supervisor'; print(p.unit)"
    )

    def run_in_unit(self, *options):
        argv = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--unit=pymtest-unit"]
        argv += [f"--working-directory={Path.cwd()}", *options, sys.executable, "-c", self.CODE]
        return subprocess.run(argv, check=False, capture_output=True, text=True)

    def test_a_delegated_service_holds_the_machine(self):
        shown = self.run_in_unit("-p", "Delegate=yes")
        assert shown.stdout == "pymtest-unit.service\n", shown.stderr

    def test_a_service_that_is_not_delegated_is_refused(self):
        shown = self.run_in_unit()
        assert "UnsupportedError: The unit pymtest-unit.service is not delegated" in shown.stderr


@pytest.mark.skipif(not has_machined(), reason="needs systemd-machined")
class TestMachined:
    """Registration, as machinectl sees it."""

    @pytest.fixture
    def manager(self):
        return manager_of("systemd")

    @pytest.fixture
    def registered(self, manager, process, request_of):
        """Return a function that makes a scope with a leader; its machine is taken out again."""
        leaders = []

        def start(name="pymtest-a.b"):
            child = process()
            manager.start(request_of(child.pid, name=name))
            leaders.append((name, child.pid))
            return RegisterRequest(
                name=name,
                machine_id="0123456789abcdef" * 2,
                leader=child.pid,
                root="/",
                service="pymachine",
            )

        yield start
        for name, leader in leaders:
            MachinedRegistrar().unregister(name, leader)

    def machines(self):
        argv = ["machinectl", "list", "--no-legend", "--no-pager"]
        text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        return {line.split()[0]: line.split()[1:3] for line in text.splitlines()}

    def test_a_registered_machine_is_listed_until_it_is_taken_out(self, registered):
        request = registered()
        MachinedRegistrar().register(request)
        assert self.machines()[request.name] == ["container", "pymachine"]
        argv = ["machinectl", "show", request.name, "--property=Id", "--property=Leader"]
        argv += ["--property=Unit"]
        shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert f"Leader={request.leader}\n" in shown
        assert f"Id={request.machine_id}\n" in shown
        assert f"Unit={unit_name(request.name)}\n" in shown
        MachinedRegistrar().unregister(request.name, request.leader)
        assert request.name not in self.machines()

    def test_unregister_leaves_a_machine_of_another_leader(self, registered):
        request = registered()
        MachinedRegistrar().register(request)
        MachinedRegistrar().unregister(request.name, request.leader + 1)
        assert request.name in self.machines()

    def test_unregister_of_an_unknown_machine_does_nothing(self):
        MachinedRegistrar().unregister("pymtest-none", 1)

    def test_unregister_does_without_a_machined_that_cannot_start(self):
        unit = "systemd-machined.service"
        subprocess.run(["systemctl", "mask", "--runtime", "--now", "--quiet", unit], check=True)
        try:
            MachinedRegistrar().unregister("pymtest-none", 1)
        finally:
            subprocess.run(["systemctl", "unmask", "--runtime", "--quiet", unit], check=True)

    def test_registering_again_replaces_what_is_ours_or_dead(self, manager, registered):
        request = registered()
        MachinedRegistrar().register(request)
        MachinedRegistrar().register(request)
        manager.remove(manager.locate(CgroupRequest.from_data(_data(request.name))))
        other = registered()
        MachinedRegistrar().register(other)
        argv = ["machinectl", "show", request.name, "--property=Leader", "--value"]
        shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert shown == f"{other.leader}\n"

    def test_another_living_machine_of_that_name_is_told(self, registered):
        request = registered()
        other = registered("pymtest-other")
        MachinedRegistrar().register(request)
        with pytest.raises(ConflictError, match=r"Another machine 'pymtest-a\.b'"):
            MachinedRegistrar().register(request.replace(leader=other.leader))

    def test_a_refusal_is_told_in_its_own_words(self, registered):
        request = registered()
        with pytest.raises(PymachineError, match=r"Failed to register .*: .+"):
            MachinedRegistrar().register(request.replace(leader=0x7FFFFFFF))

    def test_fifty_machines_of_one_name_in_a_row(self, manager, registered):
        for _ in range(50):
            request = registered()
            MachinedRegistrar().register(request)
            MachinedRegistrar().unregister(request.name, request.leader)
            manager.remove(manager.locate(CgroupRequest.from_data(_data(request.name))))
        assert request.name not in self.machines()

    def test_a_machine_survives_a_restart_of_machined(self, registered):
        request = registered()
        MachinedRegistrar().register(request)
        subprocess.run(["systemctl", "restart", "systemd-machined"], check=True)
        assert request.name in self.machines()
        MachinedRegistrar().unregister(request.name, request.leader)


def _data(name):
    return {"name": name, "slice": "machine.slice", "description": "", "root": "/", "pids": []}
