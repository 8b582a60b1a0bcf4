"""Machines in machines that have a user namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.conftest import REPOSITORY
from tests.hosts import trees
from tests.integration.test_users import copied

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = "/srv/pymachine"
INSIDE = ("/usr/bin/python3", "-SI", f"{SOURCE}/packaging/pymachine")
IMAGES = ("inner", "given")  # the second is for tests that give it to a range


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def outer_tree(request):
    """A tree with Python and ours in it, and images of machines."""
    with copied(trees.build("host", request.param)) as root:
        for name in ("machinectl_py", "packaging"):
            shutil.copytree(REPOSITORY / name, root / SOURCE[1:] / name)
        for name in IMAGES:
            image = root / "var/lib/machines" / name
            subprocess.run(["cp", "-a", trees.build("machine", request.param), image], check=True)
        yield root


class Outer:
    """A machine that holds machines."""

    def __init__(self, pymachine, name):
        self._pymachine, self._name = pymachine, name

    def run(self, *command):
        return self._pymachine("exec", self._name, "--", *command)

    def pymachine(self, *words):
        return self.run(*INSIDE, *words)

    def shown(self, *words):
        """Return what our command in it prints, which is to succeed in silence."""
        done = self.pymachine(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@contextmanager
def booted(pymachine, tree, name, *options):
    done = pymachine("boot", "-D", tree, "-M", name, *options)
    assert done.returncode == 0, done
    outer = Outer(pymachine, name)
    ids = outer.run("cat", "/proc/self/uid_map").stdout.split()
    assert ids[1] != "0", "the outer machine has no user namespace"
    yield outer
    assert pymachine("poweroff", name).returncode == 0


def runs_well(outer, name):
    """Assert that a machine in it runs, with all that its systemd starts."""
    state = outer.pymachine("exec", name, "--", "systemctl", "is-system-running", "--wait")
    failed = outer.pymachine("exec", name, "--", "systemctl", "--failed", "--no-legend")
    assert (state.stdout, failed.stdout) == ("running\n", "")


SERVICE = "systemd-run --quiet --pipe --wait -p DynamicUser=yes -p ProtectSystem=strict"
SERVICE += " -p PrivateTmp=yes -p PrivateDevices=yes -p ProtectKernelTunables=yes id -u"


def has_its_own(outer, name, kinds):
    shown = outer.shown("namespaces", name)
    rows = {line.split()[0]: "private" in line for line in shown.splitlines() if ":[" in line}
    assert {kind: rows[kind] for kind in kinds} == dict.fromkeys(kinds, True)


def test_a_machine_boots_in_a_machine(pymachine, outer_tree, machine):
    with booted(pymachine, outer_tree, machine) as outer:
        started = outer.pymachine("boot", "inner")
        assert started.returncode == 0, started
        runs_well(outer, "inner")
        assert outer.run("machinectl", "list", "--no-legend").stdout.split()[0] == "inner"
        has_its_own(outer, "inner", ("mnt", "pid", "ipc", "uts", "cgroup", "time"))
        uptime = float(outer.shown("exec", "inner", "--", "cat", "/proc/uptime").split()[0])
        assert uptime < 30
        assert outer.shown("exec", "inner", "--", "cat", "/proc/1/comm") == "systemd\n"
        assert outer.shown("exec", "inner", "--", "sh", "-c", SERVICE).strip().isdigit()
        assert outer.pymachine("reboot", "inner").returncode == 0
        runs_well(outer, "inner")
        assert outer.pymachine("poweroff", "inner").returncode == 0


def test_with_ranges_it_has_its_own_ids(pymachine, outer_tree, machine):
    with booted(pymachine, outer_tree, machine, "--private-users-delegate=2") as outer:
        rows = outer.run("cat", "/proc/self/uid_map").stdout.split()
        delegated = rows[3::3]
        started = outer.pymachine("boot", "given", "-U")
        assert started.returncode == 0, started
        runs_well(outer, "given")
        has_its_own(outer, "given", ("mnt", "pid", "ipc", "uts", "cgroup", "time", "user"))
        inner, base, count = outer.shown("exec", "given", "--", "cat", "/proc/self/uid_map").split()
        assert (inner, count) == ("0", "65536")
        assert base in delegated
        assert outer_tree.joinpath("var/lib/machines/given/etc").stat().st_uid == int(base)
        assert outer.shown("exec", "given", "--", "sh", "-c", SERVICE).strip().isdigit()
        assert outer.pymachine("poweroff", "given").returncode == 0
        # And one without, beside it.
        assert outer.shown("run", "--pipe", "inner", "--", "id", "-u") == "0\n"


def test_without_systemd_as_init_too(pymachine, outer_tree, machine):
    command = " ".join(INSIDE)
    script = f"""
        {command} boot inner 2>&1 && {command} exec inner -- systemctl is-system-running --wait
        {command} show inner -p Unit; {command} poweroff inner"""
    outer = ("--private-users-delegate=1", "-D", outer_tree, "-M", machine)
    done = pymachine("run", "--pipe", *outer, "--", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Machine 'inner' runs"), done
    assert "running" in lines


@pytest.mark.parametrize(
    "option", ["--ephemeral", "--volatile=overlay", "--overlay=+/etc::/etc", "--overlay=/etc::/etc"]
)
def test_overlays_in_it(pymachine, outer_tree, machine, option):
    script = "rm -r /etc/apt && mkdir /etc/apt && ls -A /etc/apt && stat -c %u /etc /"
    with booted(pymachine, outer_tree, machine) as outer:
        shown = outer.shown("run", "--pipe", option, "inner", "--", "sh", "-c", script)
        assert shown == "0\n0\n"


def test_what_it_has_no_rights_for_is_refused_in_one_line(pymachine, outer_tree, machine):
    with booted(pymachine, outer_tree, machine) as outer:
        for option, what in (
            ("--private-network", "CAP_NET_ADMIN"),
            ("--network-veth", "CAP_NET_ADMIN"),
            ("-U", "no range of 65536 ids"),
            ("--private-users-ownership=map", "cannot be mapped"),
        ):
            done = outer.pymachine("run", "--pipe", option, "inner", "--", "true")
            assert done.returncode == 1
            message, *hint = done.stderr.splitlines()
            assert what in message
            assert len(hint) == 1


def test_networks_in_it(pymachine, outer_tree, machine):
    # A tree is given to the ranges of an outer machine, by its name.
    images = outer_tree / "var/lib/machines"
    subprocess.run(["cp", "-a", images / "inner", images / "fresh"], check=True)
    options = ("--network-veth", "--private-users-delegate=1")
    with booted(pymachine, outer_tree, machine, *options) as outer:
        run = ("run", "--pipe", "--network-veth", "--directory=/var/lib/machines/fresh")
        for users in ("no", "pick"):
            shown = outer.shown(*run, f"--private-users={users}", "--", "ls", "/sys/class/net")
            assert shown.split() == ["host0", "lo"]
    shutil.rmtree(images / "fresh")


def test_a_tree_of_ids_that_are_not_there_is_refused(pymachine, outer_tree, machine):
    os.chown(outer_tree / "var/lib/machines/given", 5 << 16, 5 << 16)
    with booted(pymachine, outer_tree, machine, "--private-users-delegate=1") as outer:
        done = outer.pymachine("run", "-U", "-D", "/var/lib/machines/given", "--", "true")
        assert done.returncode == 1
        assert "belong to ids that this user namespace does not have" in done.stderr


ROOTLESS = "unshare -Urpf --mount-proc ls /proc/1/ns/pid; unshare -Urnm mount -t sysfs x /mnt"


@pytest.mark.parametrize("delegate", [0, 1])
def test_user_namespaces_in_it_mount_proc_where_ranges_are_delegated(
    pymachine, outer_tree, machine, delegate
):
    with booted(pymachine, outer_tree, machine, f"--private-users-delegate={delegate}") as outer:
        done = outer.run("sh", "-c", f"{ROOTLESS} && echo mounted")
        assert (done.stdout == "/proc/1/ns/pid\nmounted\n") is bool(delegate), done
        bundle = "cd /tmp && mkdir rootfs && mount --bind /var/lib/machines/inner rootfs"
        spec = (
            'runc spec --rootless && sed -i \'s/"terminal": true/"terminal": false/; s/"sh"/"id"/\''
        )
        ran = outer.run(
            "sh", "-c", f"{bundle} && {spec} config.json && runc run --no-new-keyring test"
        )
        assert ("uid=0(root)" in ran.stdout) is bool(delegate), ran
