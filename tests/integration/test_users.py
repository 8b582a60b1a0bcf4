"""User namespaces: ids inside and on the host, owners of files, ranges and their locks."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import struct
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from machinectl_py.config.spec import (
    BindMount,
    BindUserSpec,
    CredentialSpec,
    InaccessibleMount,
    NetworkSpec,
    OverlayMount,
    Rlimit,
    RootSpec,
    TmpfsMount,
    UsersSpec,
)
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.idmap import why_unmappable
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.kernel.procfs import id_map
from machinectl_py.plan.id_ranges import FIRST, FOREIGN_BASE, LAST, SIZE, lock_path
from machinectl_py.plan.root_facts import default_users
from machinectl_py.runtime.state import read_state
from tests.hosts import trees
from tests.hosts.leftovers import make_directory
from tests.integration import specs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BASE = 1 << 20
CAP_SYS_RESOURCE = 24
MAPPED = UsersSpec(mode="fixed", base=BASE, ownership="map")
PICKED = UsersSpec(mode="pick", ownership="map")


@contextmanager
def copied(source):
    """Give a copy of a tree on a tmpfs, whose ids can be mapped; an overlay's cannot."""
    target = make_directory("tree")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", target], check=True)
    try:
        subprocess.run(["cp", "-a", source, target / "root"], check=True)
        yield target / "root"
    finally:
        subprocess.run(["umount", target], check=True)
        target.rmdir()


@pytest.fixture
def plain_tree(pristine_tree):
    with copied(pristine_tree) as root:
        yield root


@pytest.fixture(params=["bookworm", "trixie"])
def each_plain_tree(request):
    with copied(trees.build("machine", request.param)) as root:
        yield root


def shell(tree, machine, script, users=MAPPED, **changes):
    """Return what a shell in a machine prints."""
    spec = specs.make_spec(tree, machine, "/bin/sh", "-c", script, users=users, **changes)
    done = specs.run(spec)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refusal(tree, machine, users, **changes):
    """Return the line with which a machine is refused."""
    done = specs.run(specs.make_spec(tree, machine, "true", users=users, **changes))
    assert done.returncode == 1, done
    assert done.stderr.startswith("pymachine: "), done
    return done.stderr


def boot(tree, machine, users=MAPPED, **changes):
    changes = {"console": "background", "payload": {"kind": "boot"}} | changes
    done = specs.run(specs.make_spec(tree, machine, users=users, **changes), "background")
    assert done.returncode == 0, done


def owners(root):
    """Return owner, group and mode of everything in a tree."""
    shown = subprocess.run(
        ["find", root, "-xdev", "-printf", "%U %G %m %P\n"],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(shown.stdout.splitlines())


def effective_capabilities():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise AssertionError


# The namespace


@pytest.mark.parametrize("network", ["host", "private"])
def test_a_machine_boots_to_running(pymachine, each_plain_tree, machine, network):
    boot(each_plain_tree, machine, network=NetworkSpec(kind=network))
    waited = pymachine("exec", machine, "--", "systemctl", "is-system-running", "--wait")
    failed = pymachine("exec", machine, "--", "systemctl", "--failed", "--no-legend")
    assert (waited.stdout, failed.stdout) == ("running\n", "")
    leader = read_state(machine).leader
    assert id_map(leader) == id_map(leader, "gid") == ((0, BASE, SIZE),)
    assert os.stat(f"/proc/{leader}").st_uid == BASE
    service = ("systemd-run", "--quiet", "--pipe", "--wait", "-p", "DynamicUser=yes")
    more = ("-p", "ProtectSystem=strict", "-p", "PrivateTmp=yes", "-p", "PrivateDevices=yes")
    ran = pymachine("exec", machine, "--", *service, *more, "id", "-u")
    assert ran.stdout.strip().isdigit(), ran
    assert pymachine("poweroff", machine).returncode == 0


def test_ids_are_mapped_inside_and_files_belong_to_the_tree(plain_tree, machine):
    script = "id -u; id -G; cat /proc/self/uid_map; stat -c %u /etc; touch /made; chown 5:6 /made"
    uid, groups, rows, etc = shell(plain_tree, machine, script).splitlines()
    assert (uid, groups, rows.split(), etc) == ("0", "0", ["0", str(BASE), str(SIZE)], "0")
    made = (plain_tree / "made").stat()
    assert (made.st_uid, made.st_gid) == (5, 6)


def test_all_namespaces_belong_to_the_machine(plain_tree, machine):
    script = (
        "mkdir -p /mnt/x && mount -t tmpfs x /mnt/x && hostname other && hostname"
        " && ip link add name v0 type veth && ls -A /sys/class/net"
    )
    if not (plain_tree / "usr/bin/ip").exists():
        script = script.replace("ip link add name v0 type veth", "true")
    capabilities = parse_names(("CAP_NET_ADMIN", *specs.RETAINED.split()))
    network = NetworkSpec(kind="private")
    shown = shell(plain_tree, machine, script, network=network, capabilities=capabilities).split()
    assert shown[0] == "other"
    assert "lo" in shown[1:]
    assert "eth0" not in shown


def test_devices_and_api_file_systems_are_there(plain_tree, machine):
    script = (
        "set -e; echo x >/dev/null; head -c 2 /dev/urandom | wc -c; test -p /proc/kmsg;"
        " cat /proc/sys/kernel/random/boot_id; ls /sys/class/mem >/dev/null; ls /proc/1/fd"
        " >/dev/null; for at in /proc /sys/class /dev/pts /dev/mqueue /sys/fs/cgroup; do"
        ' grep -c " $at " /proc/self/mountinfo; done;'
        ' grep -c -e "- none" /proc/self/mountinfo || true'
    )
    shown = shell(plain_tree, machine, script).split()
    assert shown[0] == "2"
    assert shown[1] != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert shown[2:] == ["1"] * 5 + ["0"]


def test_what_only_root_of_the_host_may_is_denied(plain_tree, machine):
    script = (
        "for file in /proc/sys/kernel/panic /proc/sysrq-trigger /sys/kernel/uevent_helper; do"
        " (echo 0 >$file) 2>/dev/null && echo $file; done; mknod /dev/mem c 1 1 2>/dev/null"
        " && head -c1 /dev/mem; cat /run/host/incoming 2>/dev/null; true"
    )
    assert shell(plain_tree, machine, script) == ""


def test_limits_are_set_and_raised_where_the_host_can(plain_tree, machine):
    limits = (Rlimit(name="NOFILE", soft=2048, hard=8192), Rlimit(name="CORE", soft=0, hard=-1))
    spec = specs.make_spec(
        plain_tree, machine, "sh", "-c", "ulimit -Sn; ulimit -Hn", users=MAPPED, rlimits=limits
    )
    command = ["prlimit", "--nofile=1024:4096", *specs.command(spec)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    hard = "8192" if effective_capabilities() >> CAP_SYS_RESOURCE & 1 else "4096"
    assert done.stdout.split() == ["2048", hard], done


def test_the_cgroup_is_the_machines_but_not_its_limits(plain_tree, machine):
    script = (
        "cd /sys/fs/cgroup && mkdir a && echo $$ >a/cgroup.procs && grep ^0 /proc/self/cgroup;"
        " echo 5 2>/dev/null >pids.max; stat -c %u cgroup.procs cgroup.freeze"
    )
    shown = shell(plain_tree, machine, script + " || true").split()
    assert shown[0] == "0::/a"
    assert shown[1:] == ["0", "65534"]


def test_sockets_can_be_exported(plain_tree, machine):
    assert shell(plain_tree, machine, "touch /run/host/unix-export/x && echo made") == "made\n"


def test_credentials_are_given(plain_tree, machine):
    given = (CredentialSpec(name="one", data="MQ=="),)
    assert shell(plain_tree, machine, "cat $CREDENTIALS_DIRECTORY/one", credentials=given) == "1"


def test_the_hosts_journal_is_written_as_root(plain_tree, machine):
    identity = uuid.uuid4().hex
    place = Path("/var/log/journal", identity)
    before = place.parent.exists()
    place.parent.mkdir(parents=True, exist_ok=True)
    journal = {"machine_id": identity, "link_journal": "host"}
    try:
        if why_unmappable("/var/log"):  # an overlay
            assert "cannot be mapped" in refusal(plain_tree, machine, MAPPED, **journal)
            return
        script = f"touch /var/log/journal/{identity}/made && stat -c %u /var/log/journal/{identity}"
        assert shell(plain_tree, machine, script, **journal) == "0\n"
        assert (place / "made").stat().st_uid == 0
    finally:
        shutil.rmtree(place)
        if not before:
            place.parent.rmdir()


def test_a_root_that_only_root_can_reach(plain_tree, machine):
    plain_tree.parent.chmod(0o700)
    assert shell(plain_tree, machine, "id -u") == "0\n"


def test_a_read_only_root_is_read_only(plain_tree, machine):
    script = "touch /x 2>/dev/null || echo denied"
    assert shell(plain_tree, machine, script, rootfs=RootSpec(read_only=True)) == "denied\n"


def test_another_user_runs_the_payload(plain_tree, machine):
    shown = shell(plain_tree, machine, "id -un", payload={"user": "daemon"})
    assert shown == "daemon\n"


def test_the_identity_map_changes_nothing_but_rights(plain_tree, machine):
    users = UsersSpec(mode="fixed", base=0, ownership="auto")
    script = "cat /proc/self/uid_map; touch /made; mknod /dev/x b 1 1 2>/dev/null; stat -c %u /etc"
    shown = shell(plain_tree, machine, script, users).split()
    assert shown == ["0", "0", str(SIZE), "0"]
    assert (plain_tree / "made").stat().st_uid == 0


def test_entering_by_exec_has_ids_and_a_terminal_of_the_machine(pymachine, plain_tree, machine):
    boot(plain_tree, machine)
    assert pymachine("exec", machine, "--", "id", "-u").stdout == "0\n"
    assert pymachine("exec", "--user=daemon", machine, "--", "id", "-un").stdout == "daemon\n"
    shown = pymachine("exec", machine, "--", "cat", "/proc/self/uid_map", "/proc/self/cgroup")
    assert str(BASE) in shown.stdout
    inside = "tty >/dev/null && stat -c %u-%g $(tty) && echo hello >$(tty)"
    command = pymachine.command("exec", machine, "--", "sh", "-c", inside)
    line = shlex.join(map(str, command))
    on_terminal = subprocess.run(
        ["script", "--quiet", "--return", "--command", line, "/dev/null"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert on_terminal.stdout.replace("^@", "").split() == ["0-5", "hello"], on_terminal
    assert pymachine("processes", machine).returncode == 0
    shown = pymachine("namespaces", machine).stdout.splitlines()
    assert any(line.startswith("user ") and "private" in line for line in shown), shown


def test_show_tells_the_range(pymachine, plain_tree, machine):
    boot(plain_tree, machine)
    shown = pymachine("show", machine, "-p", "PrivateUsers,UIDShift,UIDCount").stdout
    assert shown.split() == ["PrivateUsers=yes", f"UIDShift={BASE}", f"UIDCount={SIZE}"]


def test_a_machine_reboots_with_its_range(pymachine, plain_tree, machine):
    boot(plain_tree, machine, PICKED)
    before = read_state(machine)
    assert is_locked(lock_path(before.uid_base))
    assert pymachine("reboot", machine).returncode == 0
    after = read_state(machine)
    assert (after.boots, after.uid_base) == (2, before.uid_base)
    assert is_locked(lock_path(before.uid_base))
    assert pymachine("exec", machine, "--", "id", "-u").stdout == "0\n"
    assert pymachine("poweroff", machine).returncode == 0
    assert not os.path.exists(lock_path(before.uid_base))


# Ranges


def base_of(tree, machine, users=PICKED):
    return int(shell(tree, machine, "cat /proc/self/uid_map", users).split()[1])


def test_a_range_is_picked_by_the_name(plain_tree, machine):
    base = base_of(plain_tree, machine)
    assert FIRST <= base <= LAST
    assert base % SIZE == 0
    assert base_of(plain_tree, machine) == base
    assert base_of(plain_tree, f"{machine}x") != base
    assert not os.path.exists(lock_path(base))


def test_a_range_that_somebody_holds_is_not_picked(plain_tree, machine):
    base = base_of(plain_tree, machine)
    lock = take_lock(lock_path(base))
    try:
        assert base_of(plain_tree, machine) != base
        assert os.path.exists(lock_path(base))
    finally:
        drop_lock(lock_path(base), lock)


def test_a_range_that_was_chosen_is_not_picked_meanwhile(pymachine, plain_tree, machine):
    base = base_of(plain_tree, machine)
    boot(plain_tree, f"{machine}x", UsersSpec(mode="fixed", base=base, ownership="map"))
    with copied(trees.build("machine", "bookworm")) as other:
        assert base_of(other, machine) != base
    assert pymachine("terminate", f"{machine}x").returncode == 0


def test_many_machines_at_once_get_ranges_of_their_own(plain_tree, machine):
    script = "cat /proc/self/uid_map; exec cat"  # until its input ends: all are there at once
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = []
    for number in range(6):  # each on a tree of its own, since a root is booted once
        root = plain_tree.parent / str(number)
        subprocess.run(["cp", "--archive", "--link", plain_tree, root], check=True)
        spec = specs.make_spec(root, f"{machine}-{number}", "sh", "-c", script, users=PICKED)
        started.append(subprocess.Popen(specs.command(spec), **pipes, text=True))
    bases = [process.stdout.readline().split()[1] for process in started]
    for process in started:
        process.communicate(timeout=60)
    assert len(set(bases)) == len(started)


def test_a_killed_machines_range_is_free_again(pymachine, plain_tree, machine):
    boot(plain_tree, machine, PICKED)
    state = read_state(machine)
    os.kill(state.supervisor, signal.SIGKILL)
    wait_for(lambda: not is_locked(lock_path(state.uid_base)))
    assert os.path.exists(lock_path(state.uid_base))
    assert pymachine("list").returncode == 0
    assert not os.path.exists(lock_path(state.uid_base))


def test_ranges_for_nested_machines_are_mapped_as_they_are(plain_tree, machine):
    rows = shell(plain_tree, machine, "cat /proc/self/uid_map", PICKED.replace(delegate=2)).split()
    base, one, other = rows[1], rows[3], rows[6]
    assert rows == ["0", base, str(SIZE), one, one, str(SIZE), other, other, str(SIZE)]
    assert len({base, one, other}) == 3
    assert not any(os.path.exists(lock_path(int(number))) for number in (base, one, other))


# Mounts that root inside cannot undo

# Of each mount: whether it can be made writable and whether it can be taken off, tried in a copy.
PROBE_MOUNTS = """
while read -r id parent device root target options rest; do
    rw=-
    case ",$options," in *,ro,*)
        rw=held
        unshare -m mount -o remount,bind,rw "$target" 2>/dev/null && rw=loose
    esac
    off=held
    unshare -m umount -l "$target" 2>/dev/null && off=loose
    echo "$target $rw $off"
done < /proc/self/mountinfo
"""


def probed_mounts(shown):
    rows = [line.split() for line in shown.splitlines()]
    return {target: (rw, off) for target, rw, off in rows}


@pytest.fixture
def private_source():
    """Give a directory on a tmpfs, whose ids can be mapped, with a file of root of the host."""
    path = make_directory("source")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)
    try:
        (path / "file").write_text("of the host")
        (path / "one").mkdir()
        (path / "two").mkdir()
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
        path.rmdir()


def locked_things(source):
    """Return the changes to a spec for a machine with mounts of all kinds."""
    mounts = (
        BindMount(source=str(source), target="/mnt", read_only=True, idmap="idmap"),
        BindMount(source=str(source), target="/media", read_only=True),
        TmpfsMount(target="/var/tmp"),
        OverlayMount(
            target="/opt", lower=(f"{source}/one",), upper=f"{source}/two", read_only=True
        ),
        InaccessibleMount(hidden="/etc/shadow"),
    )
    return {"mounts": mounts, "rootfs": RootSpec(read_only=True)}


@pytest.mark.parametrize("network", ["host", "private"])
def test_root_inside_cannot_undo_mounts(plain_tree, machine, private_source, network):
    changes = locked_things(private_source) | {"network": NetworkSpec(kind=network)}
    found = probed_mounts(shell(plain_tree, machine, PROBE_MOUNTS, **changes))
    in_proc = {target for target in found if target.startswith("/proc/")}
    outside = {target: found[target] for target in found.keys() - in_proc}
    assert {"/", "/mnt", "/media", "/opt", "/etc/shadow", "/sys", "/sys/class"} < outside.keys()
    assert {target: kept for target, kept in outside.items() if "loose" in kept} == {}
    for target in ("/", "/mnt", "/media", "/opt", "/etc/shadow", "/run/host", "/sys", "/sys/class"):
        assert outside[target] == ("held", "held"), target
    assert in_proc  # as systemd-nspawn's, not locked: see the next test


def test_a_copy_of_a_read_only_mount_is_no_more_writable(plain_tree, machine, private_source):
    script = (
        "mount --bind /mnt /run && mount -o remount,bind,rw /run; echo $?;"
        " mount --rbind /mnt /run && mount -o remount,bind,rw /run; echo $?;"
        " touch /mnt/file 2>/dev/null; echo $?"
    )
    spec = specs.make_spec(
        plain_tree,
        machine,
        "/bin/sh",
        "-c",
        script,
        users=MAPPED,
        **locked_things(private_source),
    )
    done = specs.run(spec)
    assert "0" not in done.stdout.split(), done
    assert (private_source / "file").read_text() == "of the host"


def test_a_machine_in_a_machine_has_a_proc_of_its_own(plain_tree, machine):
    script = "mkdir /run/p && unshare -pfm mount -t proc proc /run/p && echo made"
    assert shell(plain_tree, machine, script) == "made\n"


def test_the_tunnel_leads_to_locked_mounts_and_reboots_do_not_loosen_them(
    pymachine, plain_tree, machine, private_source
):
    boot(plain_tree, machine, **locked_things(private_source) | {"rootfs": RootSpec()})
    first = read_state(machine).leader
    for _ in range(2):
        tried = pymachine("exec", machine, "--", "/bin/sh", "-c", PROBE_MOUNTS)
        found = probed_mounts(tried.stdout)
        for target in ("/mnt", "/media", "/etc/shadow", "/run/host/incoming", "/sys"):
            assert found[target] == ("held", "held"), (target, tried)
        if read_state(machine).leader != first:
            break
        assert pymachine("reboot", machine).returncode == 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = read_state(machine)
            if state.leader != first and state.phase == "running":
                break
            time.sleep(0.1)
    assert read_state(machine).leader != first
    assert pymachine("poweroff", machine).returncode == 0


@pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="needs systemd")
def test_what_systemd_nspawn_locks_is_locked(plain_tree, machine, private_source):
    source = private_source
    options = [f"--bind-ro={source}:/mnt:idmap", f"--bind-ro={source}:/media"]
    options += ["--read-only", "--tmpfs=/var/tmp", f"--overlay-ro={source}/one:{source}/two:/opt"]
    options += ["--inaccessible=/etc/shadow", f"--private-users={BASE}", "--pipe"]
    options += ["--private-users-ownership=map", "--private-network", "--register=no"]
    nspawn = ["systemd-nspawn", "--quiet", f"--directory={plain_tree}", *options]
    done = subprocess.run(
        [*nspawn, "/bin/sh", "-c", PROBE_MOUNTS],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if "Failed to mount proc" in done.stderr:
        pytest.skip("systemd-nspawn before 254 mounts no proc where the host's is covered")
    assert done.returncode == 0, done
    theirs = probed_mounts(done.stdout)
    changes = locked_things(private_source) | {"network": NetworkSpec(kind="private")}
    ours = probed_mounts(shell(plain_tree, machine, PROBE_MOUNTS, **changes))
    assert theirs["/mnt"] == theirs["/etc/shadow"] == ("held", "held")
    for target, (rw, off) in theirs.items():
        if target in ours:
            assert rw != "held" or ours[target][0] == "held", target
            assert off != "held" or ours[target][1] == "held", target


# Owners of files


def test_the_hosts_root_writes_to_a_mapped_root_and_gives_it_away(pymachine, plain_tree, machine):
    """As `machinectl copy-to` does."""
    boot(plain_tree, machine)
    path = Path(f"/proc/{read_state(machine).leader}/root/srv/given")
    path.write_text("")
    listed = pymachine("exec", machine, "--", "stat", "-c", "%u", "/srv/given", check=True)
    assert listed.stdout == "65534\n"
    os.chown(path, BASE, BASE)
    listed = pymachine("exec", machine, "--", "stat", "-c", "%u", "/srv/given", check=True)
    assert listed.stdout == "0\n"
    assert os.stat(plain_tree / "srv/given").st_uid == 0
    pymachine("terminate", machine, check=True)


def test_owners_are_changed_and_changed_back(plain_tree, machine):
    named = plain_tree / "etc/hostname-acl"
    named.touch()
    named.chmod(0o640)
    os.setxattr(named, ACL, acl_with_user(5))
    before = owners(plain_tree)
    users = UsersSpec(mode="fixed", base=BASE, ownership="chown")
    script = "stat -c %u-%g /etc /etc/shadow; touch /made; rm /made"
    assert shell(plain_tree, machine, script, users).splitlines()[0] == "0-0"
    assert os.getxattr(named, ACL) == acl_with_user(BASE + 5)
    changed = owners(plain_tree)
    assert all(int(line.split()[0]) & ~(SIZE - 1) == BASE for line in changed)
    assert changed == sorted(_shifted(line, BASE) for line in before)
    # The range that a tree was given to is the one that is picked next, and the root's.
    auto = UsersSpec(mode="pick", ownership="auto")
    assert base_of(plain_tree, machine, auto) == BASE
    assert base_of(plain_tree, machine, UsersSpec(mode="root")) == BASE
    back = UsersSpec(mode="fixed", base=0, ownership="chown")
    shell(plain_tree, machine, "true", back)
    assert owners(plain_tree) == before
    assert os.getxattr(named, ACL) == acl_with_user(5)


ACL = "system.posix_acl_access"


def acl_with_user(uid):
    """Return an ACL of mode 640 by which a user may read, too; <linux/posix_acl_xattr.h>."""
    rows = ((1, 6, -1), (2, 4, uid), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)


def _shifted(line, base):
    uid, gid, *rest = line.split(" ")
    return " ".join((str(int(uid) + base), str(int(gid) + base), *rest))


def test_foreign_files_are_the_machines(plain_tree, machine):
    from machinectl_py.kernel.chown_tree import move_tree

    move_tree(str(plain_tree), FOREIGN_BASE)
    script = "stat -c %u /etc; touch /made"
    users = UsersSpec(mode="pick", ownership="foreign")
    assert shell(plain_tree, machine, script, users) == "0\n"
    assert (plain_tree / "made").stat().st_uid == FOREIGN_BASE
    assert shell(plain_tree, machine, script, users.replace(ownership="auto")) == "0\n"


def test_an_overlay_is_refused_or_changed(tree, machine):
    refused = refusal(tree, machine, MAPPED)
    assert "overlay" in refused
    assert "cannot be mapped" in refused
    assert shell(tree, machine, "stat -c %u /etc", MAPPED.replace(ownership="auto")) == "0\n"
    assert tree.stat().st_uid == BASE


def test_by_default_ids_are_mapped_where_they_can_be(plain_tree, tree):
    assert default_users(str(plain_tree)) == PICKED.replace(map_mounts=True)
    assert default_users(str(tree)) == UsersSpec()
    assert default_users("/no/such/tree") == UsersSpec()
    os.chown(plain_tree, BASE, BASE)
    assert default_users(str(plain_tree)) == UsersSpec()


def test_without_ownership_the_files_are_nobodys(plain_tree, machine):
    assert shell(plain_tree, machine, "stat -c %u /etc", MAPPED.replace(ownership="off")) == (
        "65534\n"
    )


@pytest.mark.parametrize(
    ("users", "changes", "why"),
    [
        (UsersSpec(mode="fixed", base=5, ownership="chown"), {}, "multiple"),
        (UsersSpec(mode="fixed", base=BASE, count=1000, ownership="chown"), {}, "65536"),
        (UsersSpec(mode="fixed", base=(1 << 32) - 5), {}, "no range"),
        (
            UsersSpec(mode="pick", ownership="chown"),
            {"rootfs": RootSpec(read_only=True)},
            "read-only",
        ),
        (UsersSpec(mode="pick", ownership="foreign"), {}, "not to 2147352576"),
        (MAPPED, {"api_writable": True}, "writable"),
    ],
)
def test_what_makes_no_sense_is_refused(plain_tree, machine, users, changes, why):
    assert why in refusal(plain_tree, machine, users, **changes)


# By the command


def test_the_options_of_systemd_nspawn_say_it(pymachine, plain_tree, machine):
    run = ("run", "--pipe", "-D", plain_tree, "-M", machine)
    rows = ("--", "cat", "/proc/self/uid_map")
    fixed = pymachine(*run, f"--private-users={BASE}:1000", *rows)
    assert fixed.stdout.split() == ["0", str(BASE), "1000"], fixed
    picked = pymachine(*run, "-U", *rows)
    assert int(picked.stdout.split()[1]) >= FIRST, picked
    assert pymachine(*run, "--private-users=no", *rows).stdout.split()[1] == "0"
    planned = pymachine("plan", "-D", plain_tree, "-U")
    assert "write uid_map and gid_map" in planned.stdout


def test_users_of_the_host_keep_their_ids(plain_tree, machine):
    name = machine[:20]
    subprocess.run(["useradd", "--user-group", "-M", name], check=True)
    home = Path(f"/home/{name}")
    home.mkdir()
    shutil.chown(home, name, name)
    try:
        bind = BindUserSpec(names=(name,))
        script = f"touch /run/host/home/{name}/made; stat -c %u-%g /run/host/home/{name}"
        owner = "setpriv --reuid 60514 --regid 60514 --clear-groups sh -c"
        shown = shell(plain_tree, machine, f"{owner} '{script}'", bind_users=bind)
        assert shown == "60514-60514\n"
        assert (home / "made").owner() == name
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, stderr=subprocess.DEVNULL)
