"""Roots that are read-only, volatile, ephemeral, or another than their directory's own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.config.spec import BindMount, OverlayMount, RootSpec, TmpfsMount
from machinectl_py.runtime.state import find_running
from tests.integration import specs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PROBE = "for p in / /etc /usr /var; do touch $p/x 2>/dev/null && echo $p; done; true"


def start(tree, machine, script, *how, rootfs=RootSpec(), **changes):  # noqa: B008 - frozen
    """Run a shell in a machine of this root."""
    words = ("/bin/sh", "-c", script)
    return specs.run(specs.make_spec(tree, machine, *words, rootfs=rootfs, **changes), *how)


def shell(tree, machine, script, **changes):
    """Return what a shell in such a machine prints."""
    done = start(tree, machine, script, **changes)
    assert done.returncode == 0, done
    return done.stdout


def left(*directories):
    """Return the hidden names of ours in these directories."""
    return [name for place in directories for name in os.listdir(place) if ".#machine." in name]


# Read-only and volatile


def test_a_read_only_root(tree, machine):
    assert shell(tree, machine, PROBE, rootfs=RootSpec(read_only=True)) == ""
    assert shell(tree, machine, PROBE) == "/\n/etc\n/usr\n/var\n"


def test_a_read_only_root_with_what_is_mounted_in_it(tree, machine):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "srv"], check=True)
    try:
        assert shell(tree, machine, "touch /srv/x && echo made") == "made\n"
        script = "touch /srv/y 2>/dev/null || echo read-only"
        assert shell(tree, machine, script, rootfs=RootSpec(read_only=True)) == "read-only\n"
    finally:
        subprocess.run(["umount", tree / "srv"], check=True)


def test_a_volatile_root_keeps_only_usr(tree, machine):
    (tree / "srv/file").touch()
    script = f"{PROBE}; ls -d /srv /bin /root; stat -f -c %T /; readlink /bin"
    found = shell(tree, machine, f"{script} 2>/dev/null", rootfs=RootSpec(volatile="yes"))
    assert found == "/\n/etc\n/var\n/bin\n/root\ntmpfs\nusr/bin\n"
    assert not (tree / "etc/x").exists()


def test_a_volatile_root_needs_merged_usr(tree, machine):
    os.unlink(tree / "bin")
    (tree / "bin").mkdir()
    done = start(tree, machine, "true", rootfs=RootSpec(volatile="yes"))
    assert done.returncode == 1
    assert "no link into /usr" in done.stderr


def test_volatile_state_is_var_alone(tree, machine):
    script = f"{PROBE}; stat -f -c %T /var; ls -A /var"
    found = shell(tree, machine, script, rootfs=RootSpec(volatile="state"))
    assert found == "/var\ntmpfs\nx\n"


def test_a_volatile_overlay_takes_all_that_is_written(tree, machine):
    script = f"{PROBE}; rm /etc/os-release; ls /srv; cut -d' ' -f5,8-9 /proc/self/mountinfo"
    (tree / "srv/file").touch()
    found = shell(tree, machine, script, rootfs=RootSpec(volatile="overlay")).splitlines()
    assert found[:5] == ["/", "/etc", "/usr", "/var", "file"]
    assert [line for line in found if line.startswith("/ ")] in (
        ["/ - overlay"],
        ["/ overlay overlay"],
    )
    assert (tree / "etc/os-release").is_symlink()
    assert not (tree / "x").exists()


@pytest.mark.parametrize("volatile", ["state", "overlay"])
def test_systemd_boots_from_a_volatile_root(tree, machine, volatile, pymachine):
    spec = specs.make_spec(
        tree,
        machine,
        payload={"kind": "boot"},
        console="background",
        rootfs=RootSpec(volatile=volatile),
    )
    done = specs.run(spec, "background")
    assert done.returncode == 0, done
    asked = pymachine("exec", machine, "--", "systemctl", "is-system-running")
    assert asked.stdout.strip() in ("running", "degraded"), asked


# Another root


def test_a_directory_of_the_root_becomes_it(tree, machine):
    (tree / "deploy/sysroot").mkdir(parents=True)
    (tree / "deploy/usr").symlink_to("sysroot/usr")
    for name in ("bin", "lib", "lib64"):
        (tree / "deploy" / name).symlink_to(f"usr/{name}")
    rootfs = RootSpec(pivot_new="/deploy", pivot_old="/sysroot")
    found = shell(tree, machine, "ls -d /sysroot/etc/os-release /sysroot/deploy", rootfs=rootfs)
    assert found.split() == ["/sysroot/deploy", "/sysroot/etc/os-release"]


def test_no_link_leads_to_a_root_outside(tree, machine, tmp_path):
    (tmp_path / "etc").mkdir()
    (tree / "deploy").symlink_to(tmp_path)
    done = start(tree, machine, "true", rootfs=RootSpec(pivot_new="/deploy"))
    assert done.returncode == 1
    assert "/deploy" in done.stderr


def test_a_bind_on_the_root(tree, machine, tmp_path):
    (tmp_path / "outer/usr").mkdir(parents=True)
    (tmp_path / "outer/mark").touch()
    for name in ("bin", "lib", "lib64"):
        (tmp_path / "outer" / name).symlink_to(f"usr/{name}")
    mounts = (
        BindMount(source=f"{tmp_path}/outer", target="/"),
        BindMount(source=f"{tree}/usr", target="/usr", read_only=True),
    )
    assert shell(tree, machine, "ls /mark; touch /y", mounts=mounts) == "/mark\n"
    assert (tmp_path / "outer/y").exists()
    assert not (tree / "y").exists()


def test_a_tmpfs_or_overlay_on_the_root(tree, machine, tmp_path):
    (tree / "other/mark").mkdir(parents=True)
    usr = BindMount(source=f"{tree}/usr", target="/usr")
    links = [
        BindMount(source=f"{tree}/usr/{name}", target=f"/{name}")
        for name in ("lib", "lib64", "bin")
    ]
    tmpfs = TmpfsMount(target="/", options="mode=0711")
    assert shell(tree, machine, "stat -c %a /", mounts=(tmpfs, usr, *links)) == "711\n"
    overlay = OverlayMount(lower=("+/",), upper=str(tmp_path), target="//", read_only=True)
    (tmp_path / "mark").touch()
    assert shell(tree, machine, f"ls -d /mark; {PROBE}", mounts=(overlay,)) == "/mark\n"
    done = start(tree, machine, "true", mounts=(overlay.replace(upper="+/other"),))
    assert "a layer lies in another" in done.stderr


def test_a_root_with_nothing_but_usr(tree, machine, tmp_path):
    (tmp_path / "bare/usr").mkdir(parents=True)
    subprocess.run(["mount", "--bind", tree / "usr", tmp_path / "bare/usr"], check=True)
    try:
        assert shell(tmp_path / "bare", machine, "ls -ld /bin | wc -l") == "1\n"
    finally:
        subprocess.run(["umount", tmp_path / "bare/usr"], check=True)


# Ephemeral


@pytest.fixture
def memory(tree, tmp_path):
    """A root on a tmpfs of the host: what it has is bound below."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--one-file-system", tree, root], check=True)
    yield root
    subprocess.run(["umount", tmp_path], check=True)


EPHEMERAL = RootSpec(ephemeral=True)


def test_what_an_ephemeral_machine_writes_goes_with_it(memory, machine):
    before = sorted(os.listdir(memory.parent))
    script = f"{PROBE}; rm /etc/hostname /etc/os-release; mkdir -p /a/b; ls -A / | grep -c '#'"
    done = start(memory, machine, script, rootfs=EPHEMERAL)
    assert done.stdout == "/\n/etc\n/usr\n/var\n0\n", done
    assert (memory / "etc/os-release").is_symlink()
    assert not (memory / "x").exists()
    assert sorted(os.listdir(memory.parent)) == before


def test_an_ephemeral_machine_whose_root_can_have_no_layer_beside_it(tree, machine):
    """The tree is a mount, its parent perhaps an overlay: then in memory."""
    places = ("/var/tmp", "/var/lib/machines")
    before = left(*places)
    assert shell(tree, machine, PROBE, rootfs=EPHEMERAL) == "/\n/etc\n/usr\n/var\n"
    assert left(*places) == before
    assert not (tree / "x").exists()


def boot(root, machine, **changes):
    """Start a machine that sleeps in the background."""
    changes.setdefault("rootfs", EPHEMERAL)
    words = ("/bin/sh", "-c", "touch /written; sleep 1000")
    done = specs.run(
        specs.make_spec(root, machine, *words, console="background", **changes), "sleeping"
    )
    assert done.returncode == 0, done


def test_several_ephemeral_machines_share_a_root_that_nobody_writes_to(memory, machine, pymachine):
    boot(memory, machine)
    try:
        assert shell(memory, f"{machine}-2", PROBE, rootfs=EPHEMERAL) == "/\n/etc\n/usr\n/var\n"
        done = start(memory, f"{machine}-3", "true")
        assert done.returncode == 1
        assert "in use" in done.stderr
    finally:
        pymachine("terminate", machine, check=True)
    assert shell(memory, machine, "echo free") == "free\n"


def test_a_killed_supervisor_leaves_no_layer(memory, machine, pymachine):
    before = sorted(os.listdir(memory.parent))
    boot(memory, machine)
    (layer,) = set(os.listdir(memory.parent)) - set(before)
    assert layer.startswith(".#machine.root")
    wait_for((memory.parent / layer / "upper/written").exists)
    os.kill(find_running(machine).supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while sorted(os.listdir(memory.parent)) != before:
        assert time.monotonic() < deadline
        pymachine("list")
        time.sleep(0.05)


@pytest.fixture
def btrfs(tree, tmp_path):
    """A root that is a subvolume, with another subvolume in it."""
    image, place = tmp_path / "image", tmp_path / "btrfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    try:
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no btrfs here: {error}")
    try:
        root = place / "root"
        subprocess.run(["btrfs", "-q", "subvolume", "create", root], check=True)
        subprocess.run(["cp", "-a", "--one-file-system", f"{tree}/.", root], check=True)
        subprocess.run(["btrfs", "-q", "subvolume", "create", root / "srv/inner"], check=True)
        (root / "srv/inner/file").touch()
        yield root
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_subvolume_is_snapshotted_with_those_below(btrfs, machine, pymachine):
    before = sorted(os.listdir(btrfs.parent))
    assert before == ["root"]
    boot(btrfs, machine)
    try:
        snapshot = next(btrfs.parent.glob(".#machine.root*[!k]"))
        assert snapshot.stat().st_ino == 256
        assert (snapshot / "srv/inner").stat().st_ino == 256
        assert (snapshot / "srv/inner/file").exists()
        # It is a snapshot: the root itself may run and change meanwhile.
        assert shell(btrfs, f"{machine}-2", "touch /changed; echo ran") == "ran\n"
        assert not (snapshot / "changed").exists()
        subprocess.run(["btrfs", "-q", "subvolume", "create", snapshot / "new"], check=True)
    finally:
        pymachine("terminate", machine, check=True)
    assert sorted(os.listdir(btrfs.parent)) == before
    assert not (btrfs / "written").exists()


def test_a_snapshot_of_a_mount_is_taken_in_it(btrfs, machine, tmp_path):
    place = tmp_path / "mounted"
    place.mkdir()
    device = subprocess.check_output(["findmnt", "-no", "SOURCE", btrfs.parent], text=True).strip()
    subprocess.run(["mount", "-o", "subvol=root", device, place], check=True)
    try:
        script = f"{PROBE}; ls /srv/inner; ls -A / | grep machine | grep -vc lck"
        done = start(place, machine, script, rootfs=EPHEMERAL)
        assert done.stdout == "/\n/etc\n/usr\n/var\nfile\n0\n", done
        assert not left(place)
        assert not (place / "x").exists()
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_reboot_of_an_ephemeral_machine_finds_what_it_wrote(memory, machine, pymachine):
    spec = specs.make_spec(
        memory, machine, payload={"kind": "boot"}, console="background", rootfs=EPHEMERAL
    )
    before = sorted(os.listdir(memory.parent))
    assert specs.run(spec, "background").returncode == 0
    pymachine("exec", machine, "--", "touch", "/kept", check=True)
    pymachine("reboot", machine, check=True)
    is_up = ("exec", machine, "--", "test", "-e", "/run/systemd/system")
    wait_for(lambda: pymachine(*is_up).returncode == 0)
    assert find_running(machine).boots >= 1
    pymachine("exec", machine, "--", "ls", "/kept", check=True)
    pymachine("terminate", machine, check=True)
    assert sorted(os.listdir(memory.parent)) == before
    assert not Path(memory, "kept").exists()
