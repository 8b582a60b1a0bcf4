"""Machines whose root is a disk image: what they find below their root, and what the host sees."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.config.spec import RootSpec
from tests.hosts.apart import systemd_runs
from tests.integration import disks, specs
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not os.path.exists("/dev/loop-control"), reason="no loop devices here"),
]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def made(pristine_tree, tmp_path_factory):
    """Return a directory with a file system of the tree of each kind, which nobody writes to."""
    place = tmp_path_factory.mktemp("disks")
    for kind in disks.TOOLS:
        disks.file_system(kind, pristine_tree, place / f"{kind}.raw")
    yield place
    subprocess.run(["rm", "-rf", place], check=True)


@pytest.fixture
def place(tmp_path):
    """Return a directory for images that go with the test."""
    yield tmp_path
    for image in tmp_path.rglob("*"):
        if image.is_file():
            image.unlink()


@pytest.fixture
def small(place):
    """Return a function that makes a small ext4 with a file of this name."""

    def make(name: str) -> Path:
        tree = place / f"tree-{name}"
        tree.mkdir()
        (tree / f"in-{name}").write_text("here\n")
        return disks.file_system("ext4", tree, place / f"{name}.part", "8M")

    return make


@pytest.fixture
def gpt(made, place, small):
    """Return an image with root, home and srv, writable."""
    parts = (("root", made / "ext4.raw"), ("home", small("home")), ("srv", small("srv")))
    return disks.disk(place / "machine.raw", *parts)


def shown(pymachine, image, machine, script, *options):
    done = pymachine("run", "-i", image, "-M", machine, *options, "--", "/bin/sh", "-c", script)
    assert done.returncode == 0, done
    return done.stdout


def refused(pymachine, image, machine, *options):
    done = pymachine("run", "-i", image, "-M", machine, *options, "--", "/bin/true")
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (1, ""), done
    assert lines[0].startswith("pymachine: "), lines
    assert len(lines) == 1 or lines[1].startswith("hint: "), lines
    return done.stderr


@pytest.mark.parametrize("kind", disks.TOOLS)
def test_a_plain_file_system_is_a_root(pymachine, made, machine, kind):
    script = "findmnt --noheadings --output=FSTYPE,OPTIONS / && . /etc/os-release && echo $ID"
    fstype, options, name = shown(
        pymachine, made / f"{kind}.raw", machine, script, "--read-only"
    ).split()
    assert (fstype, name) == (kind, "debian")
    assert {"ro", "nodev"} <= set(options.split(","))


def test_partitions_stand_below_the_root_and_nothing_on_the_host(pymachine, gpt, machine):
    before = Path("/proc/self/mountinfo").read_text()
    pymachine("boot", "-i", gpt, "-M", machine, check=True)
    assert Path("/proc/self/mountinfo").read_text().count("/dev/loop") == before.count("/dev/loop")
    script = "for place in / /home /srv; do findmnt -rno TARGET,FSTYPE $place; done"
    inside = pymachine("exec", machine, "--", "sh", "-c", script)
    assert inside.stdout.splitlines() == ["/ ext4", "/home ext4", "/srv ext4"]
    files = pymachine("exec", machine, "--", "sh", "-c", "cat /home/in-home /srv/in-srv")
    assert files.stdout == "here\nhere\n"
    running = pymachine("exec", machine, "--", "systemctl", "is-system-running", "--wait")
    failed = pymachine("exec", machine, "--", "systemctl", "--failed", "--no-legend")
    assert (running.stdout, failed.stdout) == ("running\n", "")
    assert pymachine("poweroff", machine).returncode == 0
    assert disks.attached(gpt) == []


SEEN = "for p in / /home /srv; do findmnt -rno TARGET,FSTYPE,VFS-OPTIONS,FS-OPTIONS $p; done; true"


def by_nspawn(image, script, *options):
    """Return what a shell prints under systemd-nspawn, which must work with images on this host."""
    if not systemd_runs():
        pytest.skip("needs systemd-nspawn under systemd")
    command = ["systemd-nspawn", "--quiet", "--pipe", f"--image={image}", *options]
    command += ["--", "/bin/sh", "-c", script]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        pytest.skip(f"systemd-nspawn fails here: {done.stderr}")
    return done.stdout


@pytest.mark.parametrize("options", [(), ("--read-only",)])
@pytest.mark.parametrize("kind", [*disks.TOOLS, "gpt"])
def test_it_is_mounted_as_by_systemd_nspawn(pymachine, made, gpt, place, machine, kind, options):
    image = gpt
    if kind != "gpt":
        image = place / f"{kind}.raw"
        disks.tool("cp", made / f"{kind}.raw", image)
    theirs = by_nspawn(image, SEEN, *options)
    words = ("--quiet", "--pipe", f"--image={image}", f"--machine={machine}", *options)
    ours = pymachine("nspawn", *words, "/bin/sh", "-c", SEEN, check=True).stdout
    # systemd-nspawn discards too, but where it does not know a loop device for one.
    assert ours.replace(",discard", "") == theirs.replace(",discard", "")


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *itertools.product(
            ("ext4", "squashfs"),
            ("--volatile=yes", "--volatile=state", "--volatile=overlay", "--ephemeral"),
        ),
        ("ext4", "--pivot-root=/usr:/share"),
    ],
)
def test_the_root_is_made_of_it_as_by_systemd_nspawn(pymachine, made, place, machine, kind, option):
    image = place / f"{machine}.raw"
    disks.tool("cp", "--sparse=always", made / f"{kind}.raw", image)
    words = ("--quiet", "--pipe", f"--image={image}", f"--machine={machine}", option)
    theirs = by_nspawn(image, ROOT_SEEN, f"--machine={machine}", option)
    done = pymachine("nspawn", *words, "/bin/sh", "-c", ROOT_SEEN)
    assert (done.returncode, _comparable(done.stdout)) == (0, _comparable(theirs)), done


# Names of files, owners, and what is mounted how, where systemd-nspawn and we do so.
ROOT_SEEN = """
PATH=$PATH:/share/usr/bin:/bin
cd /; ls -d1n * | grep -v lost | sed 's/ .* / /'; stat -c '%n %u:%g %a' / /etc /root /usr /var
cat /proc/self/uid_map
while read -r _ _ _ _ at how _; do
    case $at in /|/usr|/var) echo $at $how;; esac
done < /proc/self/mountinfo
"""


def _comparable(text):
    return sorted(text.replace(",discard", "").replace(",nodev", "").splitlines())


def test_what_is_written_is_on_the_image(pymachine, gpt, machine):
    shown(pymachine, gpt, machine, "echo kept > /home/file; echo kept > /root/file")
    assert disks.attached(gpt) == []
    kept = shown(pymachine, gpt, machine, "cat /home/file /root/file", "--read-only")
    assert kept == "kept\nkept\n"
    for start in _starts(gpt):
        part = gpt.with_suffix(".part")
        disks.tool("dd", f"if={gpt}", f"of={part}", "bs=512", f"skip={start}", "status=none")
        disks.tool("e2fsck", "-fn", part)  # whole, to the last bit


def _starts(image):
    for line in disks.tool("sfdisk", "--dump", image).stdout.splitlines():
        if "start=" in line:
            yield line.partition("start=")[2].partition(",")[0].strip()


def test_a_reboot_attaches_nothing_twice(pymachine, gpt, machine):
    pymachine("boot", "-i", gpt, "-M", machine, check=True)
    loops = disks.attached(gpt)
    assert len(loops) == 3
    for _ in range(3):
        pymachine("exec", machine, "--", "sh", "-c", "date >> /home/dates")
        assert pymachine("reboot", machine).returncode == 0
        assert disks.attached(gpt) == loops
    dates = pymachine("exec", machine, "--", "cat", "/home/dates").stdout
    assert len(dates.splitlines()) == 3
    pymachine("poweroff", machine, check=True)


def test_a_killed_supervisor_leaves_no_loop_device(pymachine, gpt, machine):
    for _ in range(2):
        pymachine("boot", "-i", gpt, "-M", machine, check=True)
        supervisor = int(pymachine("show", machine, "-p", "Supervisor", "--value").stdout)
        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: disks.attached(gpt) == [])
    pymachine("boot", "-i", gpt, "-M", machine, check=True)
    pymachine("terminate", machine, check=True)


@pytest.mark.parametrize(
    "step", ["open-image", "attach-loops", "mount-partition home", "clone-payload", "attach-root"]
)
@pytest.mark.parametrize("verb", ["run", "boot"])
def test_a_step_that_fails_leaves_nothing(pymachine, gpt, machine, step, verb):
    command = ("--", "/bin/true") if verb == "run" else ()
    environment = os.environ | {"PYMACHINE_TEST_FAIL": step}
    begun = time.monotonic()
    done = pymachine(verb, "-i", gpt, "-M", machine, *command, env=environment)
    # Who undoes does not wait for itself, which would be 5 s for each device.
    assert time.monotonic() - begun < 5
    assert "injected" in done.stderr, done
    # That of the look into the image before is read-only, and goes by the kernel's own time.
    wait_for(lambda: disks.attached(gpt) == [])


def test_an_image_is_found_by_its_name(pymachine, made, machine):
    image = Path(f"/var/lib/machines/{machine}.raw")
    image.parent.mkdir(exist_ok=True)
    image.symlink_to(made / "squashfs.raw")
    try:
        done = pymachine("run", machine, "--read-only", "--", "/bin/hostname")
        planned = pymachine("plan", machine, "--read-only")
    finally:
        image.unlink()
    assert done.stdout == f"{machine}\n", done
    assert "attach loop devices with autoclear to root" in planned.stdout


def test_an_image_is_written_by_one_and_read_by_many(pymachine, gpt, machine):
    pymachine("boot", "-i", gpt, "-M", machine, check=True)
    assert "in use" in refused(pymachine, gpt, f"{machine}b")
    assert "in use" in refused(pymachine, gpt, f"{machine}b", "--read-only")
    pymachine("poweroff", machine, check=True)
    pymachine("boot", "-i", gpt, "-M", machine, "--read-only", "--no-wait", check=True)
    assert shown(pymachine, gpt, f"{machine}b", "cat /home/in-home", "--read-only") == "here\n"
    assert "in use" in refused(pymachine, gpt, f"{machine}b")
    pymachine("terminate", machine, check=True)


def test_a_read_only_run_writes_not_a_byte(pymachine, gpt, machine):
    before = disks.tool("sha256sum", gpt).stdout
    shown(pymachine, gpt, machine, "cat /home/in-home", "--read-only")
    assert disks.tool("sha256sum", gpt).stdout == before


def test_usr_alone_gets_a_root_in_memory(pymachine, pristine_tree, place, machine):
    part = disks.file_system("erofs", pristine_tree / "usr", place / "usr.part")
    image = disks.disk(place / "usr.raw", ("usr", part))
    script = "findmnt -rno TARGET,FSTYPE /; findmnt -rno FSTYPE /usr; readlink /bin"
    assert shown(pymachine, image, machine, script).split() == ["/", "tmpfs", "erofs", "usr/bin"]


OWNERS = "stat -c '%n %u:%g' / /usr /home/in-home /srv; echo new > /home/new"


def stored_owner(image, partition, path):
    """Return who owns a file on a partition of an image, by what is stored."""
    start = list(_starts(image))[partition]
    part = image.with_suffix(f".{partition}")
    disks.tool("dd", f"if={image}", f"of={part}", "bs=512", f"skip={start}", "status=none")
    shown = disks.tool("debugfs", "-R", f"stat {path}", part).stdout
    return [int(shown.partition(word)[2].split()[0]) for word in ("User:", "Group:")]


def test_there_is_a_user_namespace_unless_nobody_wants_one(pymachine, made, machine):
    script = "cat /proc/self/uid_map; stat -c %u:%g / /etc"
    options = ("--read-only",)
    for kind in ("ext4", "erofs"):
        seen = shown(pymachine, made / f"{kind}.raw", machine, script, *options).split()
        assert (seen[0], seen[2:]) == ("0", ["65536", "0:0", "0:0"])
        assert int(seen[1]) >= 1 << 19
    without = shown(
        pymachine, made / "ext4.raw", machine, script, *options, "--private-users=no"
    ).split()
    assert without == ["0", "0", str((1 << 32) - 1), "0:0", "0:0"]


def test_a_user_namespace_sees_its_ids_and_the_image_keeps_its_own(pymachine, gpt, machine):
    seen = shown(pymachine, gpt, machine, OWNERS, "--private-users=pick")
    assert seen.splitlines() == ["/ 0:0", "/usr 0:0", "/home/in-home 0:0", "/srv 0:0"]
    for place, path in ((0, "/etc"), (1, "/in-home"), (1, "/new")):
        assert stored_owner(gpt, place, path) == [0, 0]


def test_owners_are_changed_and_put_back(pymachine, gpt, machine):
    chown = "--private-users-ownership=chown"
    for base in (10 << 16, 0):
        seen = shown(pymachine, gpt, machine, OWNERS, f"--private-users={base}", chown)
        assert seen.splitlines() == ["/ 0:0", "/usr 0:0", "/home/in-home 0:0", "/srv 0:0"]
        for place, path in ((0, "/etc"), (1, "/in-home"), (1, "/new")):
            assert stored_owner(gpt, place, path) == [base, base]
        # That range is known by the root of the image.
        ids = shown(pymachine, gpt, machine, "cat /proc/self/uid_map", "--private-users=yes")
        assert ids.split() == ["0", str(base), "65536"]


def test_a_machine_with_a_user_namespace_boots_and_reboots(pymachine, gpt, machine):
    pymachine("boot", "-i", gpt, "-M", machine, "--private-users=pick", check=True)
    loops = disks.attached(gpt)
    running = pymachine("exec", machine, "--", "systemctl", "is-system-running", "--wait")
    failed = pymachine("exec", machine, "--", "systemctl", "--failed", "--no-legend")
    assert (running.stdout, failed.stdout) == ("running\n", "")
    pymachine("exec", machine, "--", "touch", "/home/new")
    assert pymachine("reboot", machine).returncode == 0
    owner = pymachine("exec", machine, "--", "stat", "-c", "%u:%g", "/home/new", "/")
    assert owner.stdout == "0:0\n0:0\n"
    assert disks.attached(gpt) == loops
    pymachine("poweroff", machine, check=True)
    assert disks.attached(gpt) == []


def test_what_a_copy_was_written_outlives_a_reboot_only(pymachine, gpt, machine):
    before = disks.tool("sha256sum", gpt).stdout
    pymachine("boot", "-i", gpt, "-M", machine, "--ephemeral", check=True)
    # Others may use the image meanwhile, to read.
    shown(pymachine, gpt, f"{machine}b", "cat /home/in-home", "--read-only")
    pymachine("exec", machine, "--", "touch", "/home/new")
    assert pymachine("reboot", machine).returncode == 0
    assert pymachine("exec", machine, "--", "ls", "/home/new").returncode == 0
    pymachine("poweroff", machine, check=True)
    assert disks.tool("sha256sum", gpt).stdout == before


def test_a_volatile_root_keeps_only_usr(pymachine, gpt, machine):
    before = disks.tool("sha256sum", gpt).stdout
    script = "findmnt -rno FSTYPE / && findmnt -rno FSTYPE,FS-OPTIONS /usr && cat /home/in-home"
    for users in ((), ("--private-users=pick",)):
        seen = shown(pymachine, gpt, machine, script, "--volatile=yes", *users).split()
        assert (seen[:2], seen[2].split(",")[0], seen[3:]) == (["tmpfs", "ext4"], "ro", ["here"])
    assert disks.tool("sha256sum", gpt).stdout == before


# A Debian without /etc asks for its settings before it is ready.
@pytest.mark.parametrize("options", [(), ("--private-users=pick",)])
@pytest.mark.parametrize("volatile", ["state", "overlay"])
def test_a_volatile_machine_boots_and_leaves_its_image(pymachine, gpt, machine, volatile, options):
    before = disks.tool("sha256sum", gpt).stdout
    mode = f"--volatile={volatile}"
    pymachine("boot", "-i", gpt, "-M", machine, mode, *options, check=True)
    script = "findmnt -rno FSTYPE,FS-OPTIONS /home; echo new > /var/new && cat /var/new"
    seen = pymachine("exec", machine, "--", "sh", "-c", script).stdout.split()
    assert (seen[0], seen[1].split(",")[0], seen[2:]) == ("ext4", "ro", ["new"])
    pymachine("poweroff", machine, check=True)
    assert disks.tool("sha256sum", gpt).stdout == before


def test_a_root_is_covered_and_its_partitions_stand_on_what_covers_it(
    pymachine, gpt, machine, pristine_tree
):
    script = "findmnt -rno FSTYPE /home; cat /home/in-home; ls -d /lost+found"
    cover = f"--bind-ro={pristine_tree}:/"
    done = pymachine("run", "-i", gpt, "-M", machine, cover, "--", "/bin/sh", "-c", script)
    assert (done.stdout, "lost+found" in done.stderr) == ("ext4\nhere\n", True)


def test_usr_alone_is_one_in_a_user_namespace_and_below_an_overlay(
    pymachine, pristine_tree, place, small, machine
):
    part = disks.file_system("erofs", pristine_tree / "usr", place / "usr.part")
    image = disks.disk(place / "usr.raw", ("usr", part), ("home", small("home")))
    script = "findmnt -rno FSTYPE / && findmnt -rno FSTYPE /usr && cat /home/in-home"
    script += " && touch /etc/new && stat -c %u:%g / /etc /usr /etc/new"
    for mode, fstype in ((), "tmpfs"), (("--volatile=overlay",), "overlay"):
        for users in ((), ("--private-users=pick",)):
            seen = shown(pymachine, image, machine, script, *mode, *users)
            assert seen.split() == [fstype, "erofs", "here", *["0:0"] * 4]


def test_the_owner_of_a_target_is_that_on_its_partition(pymachine, gpt, place, machine):
    shown(pymachine, gpt, machine, "mkdir /home/of-7 && chown 7:8 /home/of-7")
    source = place / "source"
    source.mkdir()
    (source / "file").write_text("")
    os.chown(source, 1234, 1235)
    os.chown(source / "file", 1234, 1235)
    bind = f"--bind={source}:/home/of-7:owneridmap"
    seen = shown(pymachine, gpt, machine, "stat -c %u:%g /home/of-7/file", bind, "-U")
    assert seen == "7:8\n"


def test_links_in_the_image_lead_nowhere_outside(pymachine, pristine_tree, place, small, machine):
    from tests.hosts.overlay import private_copy

    outside = place / "outside"
    outside.mkdir()
    with private_copy(pristine_tree) as tree:
        (tree / "srv").rmdir()
        (tree / "srv").symlink_to(f"../../../../..{outside}")
        (tree / outside.relative_to("/")).mkdir(parents=True)
        root = disks.file_system("ext4", tree, place / "root.part")
    image = disks.disk(place / "links.raw", ("root", root), ("srv", small("srv")))
    mounts = shown(pymachine, image, machine, "cat /proc/self/mountinfo")
    assert f" {outside} " in mounts
    assert list(outside.iterdir()) == []


def test_a_block_device_is_a_root(pymachine, made, gpt, machine):
    for image, script in ((made / "erofs.raw", "echo here"), (gpt, "cat /home/in-home")):
        device = disks.tool("losetup", "--find", "--show", image).stdout.strip()
        try:
            assert shown(pymachine, device, machine, script) == "here\n"
            assert "block device" in refused(pymachine, device, machine, "--ephemeral")
        finally:
            disks.tool("losetup", "--detach", device)


def test_what_is_not_needed_and_cannot_be_mounted_is_told(pymachine, made, place, machine):
    esp = place / "esp.part"
    disks.tool("mkfs.vfat", "-C", esp, "8192")
    image = disks.disk(place / "esp.raw", ("root", made / "ext4.raw"), ("esp", esp))
    words = ("--read-only", "--", "findmnt", "-rno", "FSTYPE,OPTIONS", "/boot")
    done = pymachine("run", "-i", image, "-M", machine, *words)
    if "\tvfat\n" in Path("/proc/filesystems").read_text():
        assert "nosymfollow" in done.stdout
        assert "fmask=0077" in done.stdout
    else:
        assert "no file system 'vfat'" in done.stderr


def test_a_policy_leaves_partitions_out_and_refuses(gpt, machine):
    def run(policy):
        rootfs = RootSpec(image=True, image_policy=policy, read_only=True)
        spec = specs.make_spec(gpt, machine, "/bin/ls", "/home", "/srv", rootfs=rootfs)
        return specs.run(spec)

    done = run("root=unprotected:srv=unprotected")
    assert (done.returncode, "in-home" in done.stdout, "in-srv" in done.stdout) == (0, False, True)
    refusal = run("root=verity+signed")
    assert refusal.returncode == 1
    assert "image policy wants signed+verity" in refusal.stderr
    assert str(gpt) in refusal.stderr


def test_an_ephemeral_machine_leaves_its_image_alone(gpt, machine):
    before = disks.tool("sha256sum", gpt).stdout
    rootfs = RootSpec(image=True, ephemeral=True)
    script = "echo new > /home/file; cat /home/file"
    spec = specs.make_spec(gpt, machine, "/bin/sh", "-c", script, rootfs=rootfs)
    assert specs.run(spec).stdout == "new\n"
    assert disks.tool("sha256sum", gpt).stdout == before


def test_a_root_hash_is_never_passed_over(pymachine, made, place, machine):
    image = place / "sealed.raw"
    disks.tool("cp", made / "erofs.raw", image)
    formatted = disks.tool("veritysetup", "format", image, place / "sealed.verity").stdout
    (place / "sealed.roothash").write_text(formatted.partition("Root hash:")[2].split()[0])
    if os.path.exists("/dev/mapper/control"):
        assert shown(pymachine, image, machine, "echo here") == "here\n"
    else:
        said = refused(pymachine, image, machine)
        assert "no device mapper" in said
        assert "CONFIG_DM_VERITY" in said


def test_a_root_hash_and_an_image_are_for_images(pymachine, gpt, pristine_tree, machine):
    words = ("-M", machine, "--", "/bin/true")
    done = pymachine("run", "-D", pristine_tree, f"--root-hash={'ab' * 32}", *words)
    assert done.returncode == 1
    assert "--root-hash= and a root directory do not go together" in done.stderr
    for verb in ("run", "nspawn"):
        done = pymachine(verb, "-D", gpt, *words)
        assert (done.returncode, "not" in done.stderr) == (1, True), done


def test_an_encrypted_image_is_refused(pymachine, place, machine):
    image = place / "luks.raw"
    image.write_bytes(b"LUKS\xba\xbe\0\2" + bytes(1 << 20))
    assert "encrypted with LUKS" in refused(pymachine, image, machine)


def test_damaged_images_are_refused(pymachine, gpt, made, place, machine):
    cut = place / "cut.raw"
    cut.write_bytes(gpt.read_bytes()[: 4 << 20])
    assert "outside the image" in refused(pymachine, cut, machine)
    with gpt.open("r+b") as file:
        for at in (512 + 24, -512 + 24):
            file.seek(at, os.SEEK_SET if at > 0 else os.SEEK_END)
            file.write(b"hostile!")
    assert "checksum of the GPT header" in refused(pymachine, gpt, machine)
    for kind in ("erofs", "squashfs"):
        data = bytearray((made / f"{kind}.raw").read_bytes()[: 1 << 20])
        data[1030:1100] = b"\xff" * 70
        data[8:90] = b"\xff" * 82
        cut.write_bytes(data)
        assert "cannot be mounted" in refused(pymachine, cut, machine)
