from __future__ import annotations

import pytest

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel import cgroupfs
from machinectl_py.managers import embedded
from machinectl_py.plan.ports import CgroupRequest

MACHINE = "/sys/fs/cgroup/pymachine/web.machine"


@pytest.fixture
def hierarchy(monkeypatch):
    """Stand in for a cgroup2 hierarchy with these controllers."""
    monkeypatch.setattr(cgroupfs, "find_cgroup2", lambda: "/sys/fs/cgroup")
    names = ["memory", "pids"]
    monkeypatch.setattr(cgroupfs, "controllers", lambda _path: tuple(names))
    return names


def request_of(name="web", slice_name="machine.slice", **fields):
    return CgroupRequest(name=name, slice=slice_name, description="", root="/", pids=(), **fields)


def test_slices_nest_as_systemd_nests_them():
    assert embedded.slice_levels("machine.slice") == []
    assert embedded.slice_levels("web.slice") == ["web.slice"]
    assert embedded.slice_levels("a-b-c.slice") == ["a.slice", "a-b.slice", "a-b-c.slice"]


@pytest.mark.parametrize(
    "name", ["web", "web.service", ".slice", "-a.slice", "a--b.slice", "/.slice"]
)
def test_a_slice_with_no_valid_name_is_refused(name):
    with pytest.raises(ConfigError, match="no valid name of a slice"):
        embedded.slice_levels(name)


def test_place_is_below_our_own_cgroup(hierarchy):
    place = embedded.EmbeddedManager().locate(request_of())
    assert (place.unit, place.cgroup) == ("", MACHINE)


def test_no_machine_can_meet_a_slice_or_a_file_of_the_kernel(hierarchy):
    locate = embedded.EmbeddedManager().locate
    taken = {locate(request_of("x", "web.slice")).cgroup.rpartition("/")[0]}
    for name in ("web.slice", "cgroup.procs", "memory.max"):
        cgroup = locate(request_of(name)).cgroup
        assert cgroup not in taken
        assert cgroup.endswith(".machine")


@pytest.mark.parametrize(
    ("name", "text", "attribute", "written"),
    [
        ("TasksMax", "100", "pids.max", "100"),
        ("TasksMax", "infinity", "pids.max", "max"),
        ("MemoryMax", "1G", "memory.max", "1073741824"),
        ("MemorySwapMax", "0", "memory.swap.max", "0"),
        ("CPUQuota", "150%", "cpu.max", "150000 100000"),
        ("CPUQuota", "infinity", "cpu.max", "max 100000"),
        ("IOWeight", "50", "io.weight", "50"),
        ("AllowedCPUs", "0-2 5", "cpuset.cpus", "0,1,2,5"),
    ],
)
def test_properties_become_files_of_the_cgroup(name, text, attribute, written):
    assert embedded._settings(((name, text),)) == [(name, attribute, written)]


def test_an_unknown_property_is_named_with_those_known():
    with pytest.raises(UnsupportedError, match="'DevicePolicy'") as caught:
        embedded._settings((("DevicePolicy", "closed"),))
    assert "MemoryMax" in caught.value.hint


def test_an_invalid_value_is_named_with_its_property():
    with pytest.raises(ConfigError, match="MemoryMax=lots is not valid: expected a number"):
        embedded._settings((("MemoryMax", "lots"),))


def test_a_property_whose_controller_is_missing_says_so(hierarchy):
    with pytest.raises(UnsupportedError, match="'CPUWeight' needs the cgroup2 controller 'cpu'"):
        embedded.EmbeddedManager().start(request_of(properties=(("CPUWeight", "50"),)))


def test_a_host_without_cgroup2_is_told(monkeypatch):
    def absent():
        raise FileNotFoundError

    monkeypatch.setattr(cgroupfs, "find_cgroup2", absent)
    with pytest.raises(UnsupportedError, match="no cgroup2 hierarchy"):
        embedded.EmbeddedManager().locate(request_of())
