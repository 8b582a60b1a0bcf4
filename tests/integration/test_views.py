"""The verbs that look, at a machine of known shape: namespaces by unshare(1), state by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.kernel import cgroupfs, procfs
from machinectl_py.kernel.locks import drop_lock, take_lock
from machinectl_py.kernel.namespaces import NAMESPACE_FLAGS
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.layout import LOCK_DIR, MACHINES_DIR, lock_path, machine_dir
from machinectl_py.runtime.state import MachineState, write_state, write_whole
from machinectl_py.thirdparty import need
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NAME = f"views-{os.getpid()}"
ADDRESSES = ("192.0.2.9", "192.0.2.10", "2001:db8::9")
STATUS = "\x1b[31mStartup finished."
UNSHARE = [
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--net",
    "--ipc",
    "--uts",
    "--cgroup",
    "--time",
    "--boottime=-1",
    "--propagation=unchanged",
]
# The machine: /mnt stays a slave of the host's, /media is shared besides, /opt is private.
INSIDE = r"""
mount --make-private /
mount -t tmpfs -o mode=755 machine /opt
mount --make-slave /mnt
mount --make-slave /media && mount --make-shared /media
mkdir '/opt/with blank'
mount --bind /opt '/opt/with blank'
mount --make-unbindable '/opt/with blank'
unshare --mount --pid --fork --kill-child sleep 1001 &
exec sleep 1000
"""


@pytest.fixture
def host_mounts():
    """A shared tmpfs at /mnt and another at /media, for machines to be slaves of."""
    for target in ("/mnt", "/media"):
        subprocess.run(["mount", "-t", "tmpfs", "views", target], check=True)
        subprocess.run(["mount", "--make-shared", target], check=True)
    yield
    for target in ("/media", "/mnt"):
        subprocess.run(["umount", target], check=True)


@pytest.fixture
def running(host_mounts):
    """The machine's state, while it runs."""
    cgroup = f"{cgroupfs.directory_of(os.getpid())}/{NAME}"
    payload = f"{cgroup}/payload"
    for path in (cgroup, payload, f"{payload}/init.scope"):
        cgroupfs.make(path)
    os.makedirs(LOCK_DIR, exist_ok=True)
    os.makedirs(machine_dir(NAME))
    lock = take_lock(lock_path(NAME))
    supervisor = subprocess.Popen(
        [*UNSHARE, "sh", "-ec", INSIDE],
        preexec_fn=lambda: cgroupfs.move(f"{payload}/init.scope", os.getpid()),
    )
    try:
        leader = wait_for(lambda: find_leader(payload), "no leader")
        cgroupfs.move(cgroup, supervisor.pid)
        state = MachineState(
            name=NAME,
            leader=leader,
            leader_start=start_ticks(leader),
            supervisor=supervisor.pid,
            phase="running",
            root="/",
            machine_id="5c" * 16,
            kind="boot",
            manager="embedded",
            unit="",
            cgroup=cgroup,
            registered=False,
            private_network=True,
            capabilities=1 << 21 | 1,
            no_new_privileges=False,
            seccomp="",
            started=time.time_ns() // 1000,
            started_monotonic=time.monotonic_ns() // 1000,
            clock_offset=0,
        )
        write_state(state)
        ready = state.started_monotonic + 530_000
        write_whole(f"{machine_dir(NAME)}/notify", json.dumps({"status": STATUS, "ready": ready}))
        yield state
    finally:
        cgroupfs.kill(cgroup)
        supervisor.wait()
        shutil.rmtree(machine_dir(NAME))
        drop_lock(lock_path(NAME), lock)
        wait_for(lambda: not cgroupfs.populated(cgroup), "the machine does not end")
        cgroupfs.remove(cgroup)
        for directory in (MACHINES_DIR, LOCK_DIR):
            if not os.listdir(directory):
                os.rmdir(directory)


def find_leader(payload):
    """Return PID 1 inside, once it has executed what it is to be and its child stands."""
    sleeping = [pid for pid in cgroupfs.pids(payload, recursive=True) if is_asleep(pid)]
    if len(sleeping) < 2:
        return 0
    return next(pid for pid in sleeping if procfs.nspid(procfs.status_fields(pid))[1:] == (1,))


def is_asleep(pid):
    """Say whether a process is sleep(1), by its arguments, which execve(2) sets last."""
    try:
        return procfs.cmdline(pid)[:1] == ("sleep",)
    except OSError:
        return False


def comm(pid):
    try:
        return procfs.comm(pid)
    except OSError:
        return ""


@pytest.fixture
def look(pymachine, running):
    """Run a verb on the machine with --json and return what it says."""

    def ask(verb, *options):
        words = () if verb == "list" else (NAME,)
        done = pymachine(verb, *words, "--json=short", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


@pytest.fixture
def network(running):
    """A veth pair between the host and the machine, with addresses inside."""
    route = need("pyroute2.iproute.linux").IPRoute()
    outer = f"ve{os.getpid()}"
    peer = {"ifname": "host0", "net_ns_fd": f"/proc/{running.leader}/ns/net"}
    route.link("add", ifname=outer, kind="veth", peer=peer)
    enter = ["nsenter", "--target", str(running.leader), "--net"]
    code = (
        "import sys; from pyroute2.iproute.linux import IPRoute; route = IPRoute()\n"
        "index = route.link_lookup(ifname='host0')[0]; route.link('set', index=index, state='up')\n"
        "for a in sys.argv[1:]:\n"
        "    route.addr('add', index=index, address=a, prefixlen=64 if ':' in a else 24)\n"
    )
    subprocess.run([*enter, "/usr/bin/python3", "-c", code, *ADDRESSES], check=True)
    index = route.link_lookup(ifname=outer)[0]
    yield index, outer
    route.link("del", index=index)
    route.close()


def test_list_shows_the_machine_with_machinectls_columns(pymachine, running):
    done = pymachine("list")
    heads, row, blank, footer = done.stdout.splitlines()
    assert heads.split() == ["MACHINE", "CLASS", "SERVICE", "OS", "VERSION", "ADDRESSES"]
    assert row.split()[:3] == [NAME, "container", "pymachine"]
    assert (blank, footer) == ("", "1 machines listed.")
    (alone,) = pymachine("list", "--no-legend").stdout.splitlines()
    assert alone.split() == row.split()


def test_list_without_machines_says_so(pymachine):
    assert pymachine("list").stdout == "No machines.\n"
    assert json.loads(pymachine("list", "-j").stdout) == []


def test_list_tells_the_system_of_the_machines_root(look):
    release = procfs.read_bytes("/etc/os-release").decode()
    (row,) = look("list")
    assert f"ID={row['os']}" in release.replace('"', "").splitlines()
    assert f"VERSION_ID={row['version']}" in release.replace('"', "").splitlines()


def test_list_shows_as_many_addresses_as_asked(look, network):
    (row,) = look("list")
    assert row["addresses"] == f"{ADDRESSES[0]}…"
    (row,) = look("list", "--max-addresses=all")
    shown = row["addresses"].splitlines()
    assert tuple(shown[:3]) == ADDRESSES  # link-local ones come last
    assert not [address for address in shown[3:] if not address.startswith("fe80:")]
    (row,) = look("list", "--max-addresses=0")
    assert row["addresses"] == ""


def test_list_imports_no_library_for_a_machine_without_links(running, pymachine):
    stub = Path(__file__).parents[2] / "packaging/pymachine"
    done = subprocess.run(
        ["/usr/bin/python3", "-SI", "-X", "importtime", stub, "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"argparse", "json", "pyroute2", "re", "socket", "subprocess", "typing", "enum"}
    assert NAME in done.stdout
    assert not imported & heavy


def test_status_tells_leader_readiness_and_processes(pymachine, running):
    text = pymachine("status", NAME).stdout
    assert text.startswith(f"{NAME}({running.machine_id})\n")
    for line in (
        f"          Leader: {running.leader} (sleep)\n",
        "State: running, ready after 0.53 s\n",
        'Status: "\\x1b[31mStartup finished."\n',
        "Manager: embedded\n",
        f"├─{running.leader} sleep 1000\n",
    ):
        assert line in text, text


def test_status_in_json_is_the_properties_with_the_tree_of_cgroups(look, running):
    (told,) = look("status")
    assert (told["Leader"], told["State"], told["ReadyUSec"]) == (running.leader, "running", 530000)
    assert told["StatusText"] == STATUS
    (payload,) = told["Processes"]["children"]
    (scope,) = payload["children"]
    assert (payload["name"], scope["name"]) == ("payload", "init.scope")
    assert scope["processes"][0] == {"pid": running.leader, "command": "sleep 1000"}


def test_status_of_several_machines_needs_each_to_run(pymachine, running):
    done = pymachine("status", NAME, "nobody")
    assert done.returncode == 1
    assert "No machine 'nobody' is running" in done.stderr


def test_show_prints_machinectls_properties_first(pymachine, running):
    lines = pymachine("show", NAME).stdout.splitlines()
    names = [line.partition("=")[0] for line in lines]
    assert names[:4] == ["Name", "Id", "Timestamp", "TimestampMonotonic"]
    assert "Unit" not in names  # empty with the embedded manager
    assert "Unit=" in pymachine("show", "--all", NAME).stdout.splitlines()
    assert f"Leader={running.leader}" in lines
    assert "CapabilityBoundingSet=CAP_CHOWN CAP_SYS_ADMIN" in lines


def test_show_prints_the_values_that_are_asked_for(pymachine, running):
    done = pymachine("show", NAME, "-p", "State,Leader", "--property=Unit", "--value")
    assert done.stdout == f"running\n{running.leader}\n\n"
    assert pymachine("show", "-P", "Name", NAME).stdout == f"{NAME}\n"
    assert pymachine("show", "-P", "Machines").stdout == f"{NAME}\n"


def test_show_refuses_an_unknown_property(pymachine, running):
    done = pymachine("show", NAME, "-p", "Leeder")
    assert done.returncode == 2
    assert "Unknown property 'Leeder', did you mean Leader?" in done.stderr


def test_show_counts_uptime_from_the_machines_own_clock(look, running):
    (shown,) = look("show")
    with open("/proc/uptime") as file:
        here = float(file.read().split()[0])
    # The machine's was set by the initial clock, from which this host may differ.
    initial = here - procfs.boottime_offset(os.getpid()) / 1_000_000_000
    inside = shown["UptimeUSec"] / 1_000_000
    assert inside == pytest.approx(initial - 1, abs=0.9)
    assert inside < initial


def test_show_names_the_hosts_end_of_the_network(look, network):
    (shown,) = look("show", "-p", "NetworkInterfaces,Addresses")
    assert shown["NetworkInterfaces"] == [network[0]]
    assert tuple(shown["Addresses"][:3]) == ADDRESSES


def test_a_pidfd_id_is_that_of_the_leader_alone(look, running):
    (shown,) = look("show", "-p", "LeaderPIDFDId")
    fd = os.pidfd_open(running.leader)
    try:
        assert shown["LeaderPIDFDId"] in (0, os.fstat(fd).st_ino)
    finally:
        os.close(fd)


def test_namespaces_compare_the_leaders_with_the_hosts(look, running):
    view = look("namespaces")
    rows = {row["type"]: row for row in view["namespaces"]}
    assert list(rows) == list(NAMESPACE_FLAGS)
    for kind, row in rows.items():
        assert row["machine"] == os.readlink(f"/proc/{running.leader}/ns/{kind}")
        assert row["shared"] == (kind == "user")
        assert row["shared"] == (row["machine"] == row["host"])


def test_namespaces_count_those_inside_and_name_those_besides(look, running):
    rows = {row["type"]: row for row in look("namespaces")["namespaces"]}
    # PID 1, the inner unshare and its child, which has mounts and PIDs of its own.
    assert (rows["mnt"]["members"], rows["pid"]["members"], rows["net"]["members"]) == (1, 2, 3)
    assert rows["pid"]["others"] == []
    assert os.getpid() in [other["pid"] for other in rows["user"]["others"]]
    guest = subprocess.Popen(["nsenter", f"-t{running.leader}", "--uts", "sleep", "1002"])
    wait_for(lambda: comm(guest.pid) == "sleep", "no guest")
    try:
        rows = {row["type"]: row for row in look("namespaces")["namespaces"]}
    finally:
        guest.kill()
        guest.wait()
    assert rows["uts"]["others"] == [{"pid": guest.pid, "name": "sleep"}]
    assert rows["net"]["others"] == []


def test_processes_have_their_number_inside(look, running):
    rows = look("processes")
    first = rows[0]
    assert (first["pid"], first["inside"], first["depth"]) == (running.leader, 1, 0)
    assert (first["user"], first["uid"], first["cgroup"]) == ("root", 0, "/init.scope")
    assert first["command"] == "sleep 1000"
    assert 0 < first["elapsed"] < 60_000_000
    assert first["memory"] > 0
    inner = rows[-1]
    assert inner["command"] == "sleep 1001"
    assert inner["depth"] == 2
    numbers = procfs.nspid(procfs.status_fields(inner["pid"]))
    assert (inner["inside"], len(numbers)) == (numbers[-2], numbers.index(1) + 1)


def test_processes_show_one_that_entered_without_the_cgroup(look, running):
    guest = subprocess.Popen(["nsenter", f"-t{running.leader}", "--pid", "sleep", "1003"])
    try:
        rows = wait_for(
            lambda: [row for row in look("processes") if row["command"] == "sleep 1003"], "no guest"
        )
    finally:
        for child in Path(f"/proc/{guest.pid}/task/{guest.pid}/children").read_text().split():
            os.kill(int(child), 9)
        guest.wait()
    assert rows[0]["inside"] > 1
    assert rows[0]["cgroup"].startswith("/../")


def test_a_threaded_cgroup_inside_hides_no_process(look, running):
    # Its cgroup.procs cannot be read (EOPNOTSUPP), and a machine may make one at any time.
    threaded = f"{running.cgroup}/payload/init.scope/workers"
    cgroupfs.make(threaded)
    cgroupfs.write(threaded, "cgroup.type", "threaded")
    assert [row["command"] for row in look("processes")][::2] == ["sleep 1000", "sleep 1001"]
    assert len(look("status")[0]["Processes"]["children"]) == 1


def test_ps_is_processes(pymachine, running):
    done = pymachine("ps", NAME, "--no-legend")
    assert done.stdout.splitlines()[0].split()[:3] == [str(running.leader), "1", "root"]


def test_mounts_tell_the_propagation_inside(look, running):
    rows = {row["target"]: row for row in look("mounts")}
    host = {mount.target: mount for mount in procfs.mountinfo("self")}
    assert rows["/"]["propagation"] == "private"
    assert rows["/opt"]["propagation"] == "private"
    assert rows["/opt/with blank"]["propagation"] == "unbindable"
    assert rows["/mnt"]["propagation"] == f"slave:{host['/mnt'].shared}"
    shared, slave = rows["/media"]["propagation"].split(",")
    assert slave == f"slave:{host['/media'].shared}"
    assert shared.startswith("shared:")
    assert shared != f"shared:{host['/media'].shared}"


def test_mounts_name_the_hosts_side(look, running):
    rows = {row["target"]: row for row in look("mounts")}
    assert rows["/mnt"]["master_path"] == "/mnt"
    assert rows["/mnt"]["host_path"] == "/mnt"
    assert rows["/mnt"]["host_propagation"].startswith("shared:")
    assert rows["/"]["master_path"] == ""
    assert rows["/opt"]["host_path"] == ""  # a tmpfs that the host does not have


def test_mounts_are_drawn_as_a_tree(pymachine, running):
    lines = pymachine("mounts", NAME).stdout.splitlines()
    assert lines[0].split()[:3] == ["TARGET", "PROPAGATION", "HOST"]
    assert [line for line in lines if line.lstrip("│ ").startswith("└─/opt/with blank ")], lines


@pytest.mark.parametrize("verb", ["status", "show", "namespaces", "processes", "mounts"])
def test_a_machine_that_does_not_run_is_not_found(pymachine, verb):
    done = pymachine(verb, "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("pymachine: No machine 'nobody' is running\n")
    assert done.stdout == ""


@pytest.mark.parametrize("verb", ["list", "status", "processes", "namespaces", "mounts"])
def test_who_is_not_root_sees_what_proc_allows(pymachine, running, verb):
    words = () if verb == "list" else (NAME,)
    nobody = {"user": 65534, "group": 65534, "extra_groups": ()}
    done = pymachine(verb, *words, **nobody)
    if verb == "mounts" and done.returncode:  # a host with hidepid= denies
        assert "Only root may see" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    hidden = "Those of the machine are for root alone to see."
    shown = {"processes": str(running.leader), "namespaces": hidden, "mounts": "/mnt"}
    assert shown.get(verb, NAME) in done.stdout


def test_what_another_version_left_hides_no_machine(pymachine, machine):
    left = Path(f"/run/pymachine/machines/{machine}")
    left.mkdir(parents=True)
    (left / "journal").write_text('{"step":"lock-root","data":{}}\n')
    try:
        listed = pymachine("list", "--no-legend")
        told = f"{left}/journal, line 1: not an act of this version of pymachine"
        assert (listed.returncode, listed.stderr) == (0, f"pymachine: {told}\n")
        shown = pymachine("status", machine)
        assert (shown.returncode, shown.stderr.splitlines()[0]) == (1, f"pymachine: {told}")
    finally:
        (left / "journal").unlink()
        left.rmdir()
        Path(f"/run/pymachine/locks/{machine}").unlink(missing_ok=True)
