"""What a machine is shown besides its root: binds, tmpfs, overlays, hidden paths."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from machinectl_py.config.spec import (
    BindMount,
    InaccessibleMount,
    NetworkSpec,
    OverlayMount,
    TmpfsMount,
)
from tests.hosts.apart import systemd_runs
from tests.integration import specs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def start(tree, machine, script, *mounts, **changes):
    """Run a shell in a machine with these mounts."""
    return specs.run(
        specs.make_spec(tree, machine, "/bin/sh", "-c", script, mounts=mounts, **changes)
    )


def shell(tree, machine, script, *mounts, **changes):
    """Return what a shell prints in a machine with these mounts."""
    done = start(tree, machine, script, *mounts, **changes)
    assert done.returncode == 0, done
    return done.stdout


def refused(tree, machine, *mounts, **changes):
    """Return the line by which a machine with these mounts is refused."""
    done = start(tree, machine, "echo ran", *mounts, **changes)
    assert (done.returncode, done.stdout) == (1, ""), done
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def source(tmp_path):
    """A directory of the host with a file in it."""
    place = tmp_path / "source"
    place.mkdir()
    (place / "file").write_text("of the host\n")
    return place


@pytest.fixture
def memory(tmp_path):
    """A tmpfs of the host, as the upper layers of overlays want."""
    place = tmp_path / "memory"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def temporaries():
    return [name for name in os.listdir("/var/tmp") if name.startswith("pymachine-test-")]


# Binds


def test_a_directory_is_bound_on_one_that_is_made(tree, machine, source):
    bind = BindMount(source=str(source), target="/new/place")
    script = "cat /new/place/file; stat -c '%a %u' /new; echo x >/new/place/written"
    assert shell(tree, machine, script, bind) == "of the host\n755 0\n"
    assert (source / "written").read_text() == "x\n"


def test_files_of_all_kinds_are_bound_on_files_that_are_made(tree, machine, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        (tmp_path / "regular").touch()
        os.mknod(tmp_path / "device", 0o20666, os.makedev(1, 3))
        kinds = ("fifo", "socket", "regular", "device")
        binds = [BindMount(source=f"{tmp_path}/{kind}", target=f"/b/{kind}") for kind in kinds]
        found = shell(tree, machine, "cd /b; stat -c %F fifo socket regular device", *binds)
    assert found.splitlines() == [
        "fifo",
        "socket",
        "regular empty file",
        "character special file",
    ]


def test_what_is_mounted_below_a_source_is_shown_unless_told_otherwise(
    tree, machine, source, tmp_path
):
    (source / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
    try:
        (source / "below" / "x").touch()
        binds = (
            BindMount(source=str(source), target="/a"),
            BindMount(source=str(source), target="/b", recursive=False),
            BindMount(source=str(source), target="/c", read_only=True),
        )
        script = "ls /a/below /b/below; touch /c/x /c/below/y 2>/dev/null || echo read-only"
        found = shell(tree, machine, script, *binds)
    finally:
        subprocess.run(["umount", source / "below"], check=True)
    assert found == "/a/below:\nx\n\n/b/below:\nread-only\n"


def test_later_mounts_of_the_host_appear_but_none_goes_out(tree, machine, source):
    script = "mkdir /a/out; mount -t tmpfs tmpfs /a/out; grep -c ' /a/out ' /proc/self/mountinfo"
    assert shell(tree, machine, script, BindMount(source=str(source), target="/a")) == "1\n"
    assert "source/out" not in Path("/proc/self/mountinfo").read_text()


def test_a_source_inside_may_be_a_mount_that_was_made_before(tree, machine, source):
    binds = (
        BindMount(source="+/a/file", target="/b/file", read_only=True),
        BindMount(source=str(source), target="/a"),
    )
    script = "cat /b/file; echo x 2>/dev/null >/b/file || echo read-only"
    assert shell(tree, machine, script, *binds) == "of the host\nread-only\n"


def test_a_bind_without_source_is_empty_and_goes_with_the_machine(tree, machine):
    before = temporaries()
    bind = BindMount(source="", target="/var/scratch")
    script = "ls /var/scratch; mkdir -p /var/scratch/a/b; touch /var/scratch/a/b/c; echo made"
    assert shell(tree, machine, script, bind) == "made\n"
    assert temporaries() == before


def test_missing_sources(tree, machine, source):
    missing = f"{source}/none"
    optional = BindMount(source=missing, target="/a", optional=True)
    inside = BindMount(source="+/none", target="/b", optional=True)
    assert (
        shell(tree, machine, "ls -d /a /b 2>/dev/null || echo none", optional, inside) == "none\n"
    )
    line = refused(tree, machine, BindMount(source=missing, target="/a"))
    assert line == f"pymachine: There is no {missing} on this host, to be mounted on /a"
    line = refused(tree, machine, BindMount(source="+/none", target="/a"))
    assert "/none of the machine on /a" in line


def test_a_file_and_a_directory_do_not_fit(tree, machine, source):
    assert "/etc" in refused(tree, machine, BindMount(source=f"{source}/file", target="/etc"))
    (tree / "etc/hosts").touch()
    line = refused(tree, machine, BindMount(source=str(source), target="/etc/hosts"))
    assert "Not a directory: /etc/hosts" in line or "Not a directory: etc/hosts" in line


def test_of_two_mounts_with_one_target_the_last_is_seen(tree, machine, source):
    (source / "other").mkdir()
    one, other = (
        BindMount(source=str(source / name), target=target)
        for name, target in (("", "/a/b"), ("other", "/a//b/"))
    )
    assert shell(tree, machine, "ls /a/b", one, other) == ""
    assert shell(tree, machine, "ls /a/b", other, one) == "file\nother\n"
    script = "ls /a/b; grep -c ' /a/b ' /proc/self/mountinfo"
    assert shell(tree, machine, script, TmpfsMount(target="/a/b"), one) == "1\n"


def test_mounts_stand_in_the_order_of_their_targets(tree, machine, source):
    (source / "deep").mkdir()
    mounts = (
        TmpfsMount(target="/q/deep"),
        TmpfsMount(target="/q-b"),
        BindMount(source=str(source), target="/q"),
    )
    script = "cat /q/file; grep -o ' /q[^ ]* ' /proc/self/mountinfo"
    assert shell(tree, machine, script, *mounts).split() == [
        "of",
        "the",
        "host",
        "/q",
        "/q/deep",
        "/q-b",
    ]


@pytest.mark.parametrize("target", ["/run/host/x/y", "/sys/fs/x", "/proc/sys/vm/swappiness"])
def test_targets_in_what_becomes_read_only(tree, machine, source, target):
    kind = "file" if target.startswith("/proc") else ""
    bind = BindMount(source=str(source / kind), target=target)
    assert shell(tree, machine, f"cat {target} {target}/file 2>/dev/null; true", bind) == (
        "of the host\n"
    )


@pytest.fixture
def owned(memory):
    """A directory of user 1000 with a file of his and one of root."""
    place = memory / "owned"
    place.mkdir()
    for name in ("his", "roots"):
        (place / name).touch()
    os.chown(place, 1000, 1001)
    os.chown(place / "his", 1000, 1001)
    return place


@pytest.mark.parametrize(
    ("idmap", "seen_as"),
    [("noidmap", "1000 1001 1000 1001 0 0"), ("rootidmap", "0 0 0 0 65534 65534")],
)
def test_the_owner_of_a_source_may_be_root_inside(tree, machine, owned, idmap, seen_as):
    bind = BindMount(source=str(owned), target="/a", idmap=idmap)
    script = "touch /a/new; echo $(stat -c '%u %g' /a /a/his /a/roots)"
    assert shell(tree, machine, script, bind).strip() == seen_as
    status = (owned / "new").stat()
    expected = (0, 0) if idmap == "noidmap" else (1000, 1001)
    assert (status.st_uid, status.st_gid) == expected


def test_the_owner_of_a_source_may_be_that_of_the_target(tree, machine, owned):
    (tree / "home/user").mkdir(parents=True)
    os.chown(tree / "home/user", 77, 78)
    bind = BindMount(source=str(owned), target="/home/user", idmap="owneridmap")
    script = "touch /home/user/new; chown 77:78 /home/user/new; stat -c '%u %g' /home/user/his"
    assert shell(tree, machine, script, bind).strip() == "77 78"


def test_ids_are_not_mapped_to_the_hosts_own(tree, machine, owned):
    line = refused(tree, machine, BindMount(source=str(owned), target="/a", idmap="idmap"))
    assert "cannot be mapped" in line


# Hostile roots


@pytest.mark.parametrize("link", ["{outside}", "../../../../../../..{outside}", "/proc/1/root"])
@pytest.mark.parametrize("kind", ["bind", "tmpfs", "overlay"])
def test_no_link_at_a_target_leads_out_of_the_root(tree, machine, source, tmp_path, link, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "way").symlink_to(link.format(outside=outside))
    mount = {
        "bind": BindMount(source=str(source), target="/way/new"),
        "tmpfs": TmpfsMount(target="/way/new"),
        "overlay": OverlayMount(
            lower=("+/etc",), upper=str(source), target="/way/new", read_only=True
        ),
    }[kind]
    done = start(tree, machine, "grep -c /new /proc/self/mountinfo", mount, tmpfs_tmp=False)
    if link.startswith("/proc"):
        assert done.returncode == 1
        assert "symbolic links" in done.stderr
    else:  # to a path of that name inside
        assert done.stdout == "1\n", done
        assert (tree / str(outside).lstrip("/") / "new").is_dir()
    assert not list(outside.iterdir())
    assert not (source.parent / "new").exists()


def test_no_link_reaches_a_descriptor_of_the_init_wrapper(tree, machine, source):
    for number in range(3, 40):
        (tree / f"way{number}").symlink_to(f"/proc/self/fd/{number}")
    open_ones = 0
    for number in range(3, 40, 4):
        secret = BindMount(source=str(source), target=f"/way{number}/in")
        open_ones += "symbolic links" in refused(tree, machine, secret)
        inside = BindMount(source=f"+/way{number}", target="/shown")
        open_ones += "symbolic links" in refused(tree, machine, inside)
    assert open_ones
    assert [path.name for path in source.iterdir()] == ["file"]


# tmpfs


def test_options_of_a_tmpfs(tree, machine):
    tmpfs = TmpfsMount(target="/memory", options="mode=0700,size=1m,noexec,dev,nostrictatime")
    script = "stat -c %a /memory; grep ' /memory ' /proc/self/mountinfo"
    mode, line = shell(tree, machine, script, tmpfs).splitlines()
    assert mode == "700"
    assert line.split()[5] == "rw,noexec,relatime"
    assert "size=1024k" in line.split()[-1]


def test_a_tmpfs_with_options_that_it_does_not_have(tree, machine):
    assert "/memory" in refused(tree, machine, TmpfsMount(target="/memory", options="nonsense=1"))


def test_a_tmpfs_on_tmp_only_if_wanted(tree, machine):
    script = "stat -f -c %T /tmp"
    assert shell(tree, machine, script) == "tmpfs\n"
    assert shell(tree, machine, script, tmpfs_tmp=False) != "tmpfs\n"


# Inaccessible paths


def test_hidden_paths_of_all_kinds(tree, machine):
    os.mkfifo(tree / "fifo")
    (tree / "etc/secret").write_text("x")
    paths = ("/etc/secret", "/opt", "/fifo", "/dev/full", "/var/lib")
    hidden = [InaccessibleMount(hidden=path) for path in paths]
    script = "stat -c '%a %F' /etc/secret /opt /fifo /var/lib; stat -c %a /dev/full"
    found = shell(tree, machine, script, *hidden)
    assert found.splitlines() == [
        "0 regular empty file",
        "0 directory",
        "0 fifo",
        "0 directory",
        "0",
    ]


@pytest.mark.parametrize("target", ["/run", "/run/host/"])
def test_what_the_manager_needs_cannot_be_covered(tree, machine, target):
    line = refused(tree, machine, TmpfsMount(target=target))
    assert line.startswith(f"pymachine: Nothing can be mounted on {target}")


def test_a_hidden_path_must_exist(tree, machine):
    assert "/none" in refused(tree, machine, InaccessibleMount(hidden="/none"))


# Overlays


def test_an_overlay_writes_to_its_upper_layer(tree, machine, memory, source):
    lower = memory / "lower"
    lower.mkdir()
    (lower / "file").write_text("upper of the lower\n")
    upper = memory / "not" / "yet"
    overlay = OverlayMount(lower=(str(source), str(lower)), upper=str(upper), target="/over")
    assert (
        shell(tree, machine, "cat /over/file; echo x >/over/new", overlay) == "upper of the lower\n"
    )
    assert (upper / "new").read_text() == "x\n"
    assert [path.name for path in upper.parent.iterdir()] == ["yet"]


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", "a\\:,b", 'a"b'])
def test_layers_of_difficult_names(tree, machine, memory, name):
    for layer in ("lower", "upper"):
        (memory / name / layer).mkdir(parents=True)
    (memory / name / "lower" / "x").write_text(name)
    base = str(memory / name)
    writable = OverlayMount(lower=(f"{base}/lower",), upper=f"{base}/upper", target="/a")
    read_only = OverlayMount(
        lower=(f"{base}/lower",), upper=f"{base}/lower", target="/b", read_only=True
    )
    script = "cat /a/x; touch /a/y; touch /b/y 2>/dev/null || cat /b/x"
    read_only = read_only.replace(upper=f"{base}/upper")
    assert shell(tree, machine, script, writable, read_only) == name * 2
    assert (memory / name / "upper" / "y").exists()
    assert sorted(os.listdir(base)) == ["lower", "upper"]


def test_an_overlay_without_upper_layer_takes_a_temporary_one(tree, machine):
    if subprocess.check_output(["stat", "-f", "-c", "%T", "/var/tmp"]) == b"overlayfs\n":
        pytest.skip("the disk of this host is an overlay, on which none can be stacked for writing")
    before = temporaries()
    overlay = OverlayMount(lower=("+/etc",), upper="", target="/etc")
    script = "rm /etc/hostname; echo new >/etc/new; cat /etc/new; ls /etc/hostname 2>/dev/null"
    done = start(tree, machine, script, overlay)
    assert done.stdout == "new\n", done
    assert not (tree / "etc/new").exists()
    assert (tree / "etc/os-release").exists()
    assert temporaries() == before


def test_an_overlay_in_the_root_itself(memory, tree, machine):
    root = memory / "root"
    shutil.copytree("/etc", root / "layers/etc", symlinks=True, ignore=lambda *_: [])
    for name in ("usr", "bin", "sbin", "lib", "lib64"):
        if (tree / name).is_symlink():
            (root / name).symlink_to(os.readlink(tree / name))
    (root / "usr").mkdir()
    overlay = OverlayMount(lower=("+/layers/etc",), upper="+/layers/upper", target="/over")
    usr = BindMount(source=str(tree / "usr"), target="/usr", read_only=True)
    assert shell(root, machine, "touch /over/x; ls /layers", overlay, usr) == "etc\nupper\n"
    assert (root / "layers/upper/x").exists()
    assert sorted(os.listdir(root / "layers")) == ["etc", "upper"]


def test_layers_that_cannot_be(tree, machine, source):
    missing = OverlayMount(lower=(f"{source}/none",), upper="", target="/a")
    assert "There is no" in refused(tree, machine, missing)
    file = OverlayMount(lower=(f"{source}/file",), upper="", target="/a")
    assert "is no directory" in refused(tree, machine, file)


# What is writable


def test_sysctls_of_the_network_may_be_writable_alone(tree, machine):
    last = 'grep -o " /proc/sys$f r[ow]" /proc/self/mountinfo | tail -n1'
    script = f"for f in /net /vm ''; do {last}; done"
    assert shell(tree, machine, script) == " /proc/sys ro\n"
    found = shell(tree, machine, script, api_writable_network=True)
    assert found == " /proc/sys/net rw\n /proc/sys ro\n"
    assert shell(tree, machine, script, network=NetworkSpec(kind="private")) == found


# The same as systemd-nspawn

# By what is compared: the targets, and the options of both. {s}: a directory with a mount in it,
# {m}: a directory of the host in memory.
SAME = {
    "a bind": (("/a", "/a/below"), ["--bind={s}:/a"]),
    "a read-only bind": (("/a", "/a/below"), ["--bind-ro={s}:/a"]),
    "a bind of one mount": (("/a", "/a/below"), ["--bind={s}:/a:norbind"]),
    "files": (
        ("/n/file", "/etc/os-release"),
        ["--bind={s}/file:/n/file", "--bind-ro={s}/file:/etc/os-release"],
    ),
    "a bind from inside": (("/b", "/c"), ["--bind=+/etc:/b", "--bind-ro=+/srv:/c"]),
    "a bind whose owner is root": (("/a",), ["--bind={m}/usr:/a:rootidmap"]),
    "a bind of nothing": (("/scratch",), ["--bind=:/scratch"]),
    "tmpfs": (("/t", "/u"), ["--tmpfs=/t", "--tmpfs=/u:mode=1777,size=1m,noexec,ro"]),
    "order": (("/a", "/a/below", "/a/deep"), ["--tmpfs=/a/deep", "--bind={s}:/a"]),
    "escapes": (("/a:b", "/c"), ["--bind={s}:/a\\:b", "--bind={m}/co\\:lon:/c"]),
    "hidden": (("/opt", "/dev/full"), ["--inaccessible=/opt", "--inaccessible=/dev/full"]),
    "an overlay": (("/over",), ["--overlay={s}:{m}/upper:/over"]),
    "a read-only overlay": (("/over",), ["--overlay-ro={s}:+/etc:{m}:/over"]),
    "a read-only root": (("/", "/srv"), ["--read-only", "--tmpfs=/srv"]),
    "volatile": (("/", "/usr", "/var"), ["--volatile=yes"]),
    "volatile state": (("/", "/usr", "/var"), ["--volatile=state"]),
    "a volatile overlay": (("/", "/usr", "/var"), ["--volatile=overlay"]),
    "another root": (
        ("/", "/sysroot", "/usr"),
        ["--pivot-root=/deploy:/sysroot", "--bind=/usr"],
    ),
    "a bind on the root": (("/", "/usr"), ["--bind={s}:/", "--bind=/usr"]),
}
# What is not the same on purpose: nothing of the host comes to the root but by the tunnel; hidden
# is what the machine's own /run/host has for it, which is sealed; layers have their own names.
_OWN_LAYERS = ("lowerdir=", "upperdir=", "workdir=", "uuid=")
_OF_THE_MACHINE = ("/", "/usr", "/srv", "/sysroot", "/b", "/c", "/opt", "/dev/full")
_SEALED = {"nosuid", "nodev", "noexec"}


def seen(output, targets):
    """Return what mountinfo says of these targets; those on one target in their order."""
    found = []
    for line in output.splitlines():
        front, _, back = line.partition(" - ")
        _, _, _, _, target, options, *propagation = front.split(" ")
        kind, _, super_options = back.split(" ")
        kinds = {word.partition(":")[0] for word in propagation}
        if target in _OF_THE_MACHINE:
            kinds.discard("master")
        flags = set(options.split(","))
        if target in ("/opt", "/dev/full"):
            flags -= _SEALED
        shown = [word for word in super_options.split(",") if not word.startswith(_OWN_LAYERS)]
        if target in targets:
            found.append((target, kind, sorted(flags), sorted(kinds), sorted(shown)))
    return sorted(found, key=lambda one: one[0])


@pytest.fixture
def both(pymachine):
    """Run a command by systemd-nspawn and by us, on equal trees."""
    if not systemd_runs():
        pytest.skip("needs systemd-nspawn under systemd")
    settings = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL}

    def run(tree, machine, options, *words):
        common = ["-M", machine, "-D", str(tree), *options]
        nspawn = ["systemd-nspawn", "--quiet", "--pipe", *common, *words]
        theirs = subprocess.run(nspawn, check=False, **settings)
        ours = pymachine("run", "--pipe", *common, "--", *words)
        return theirs, ours

    return run


@pytest.mark.parametrize("what", SAME)
def test_mounts_are_systemd_nspawns(tree, machine, source, memory, both, what):
    targets, options = SAME[what]
    for name in ("below", "usr", "co:lon"):
        (source / name).mkdir()
        (memory / name).mkdir()
    (tree / "deploy/usr").mkdir(parents=True)
    (tree / "deploy/sysroot").mkdir()
    for place in (tree / "deploy", source):
        for name in ("bin", "lib", "lib64"):
            (place / name).symlink_to(f"usr/{name}")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
    try:
        words = [option.format(s=source, m=memory) for option in options]
        theirs, ours = both(tree, machine, words, "cat", "/proc/self/mountinfo")
    finally:
        subprocess.run(["umount", source / "below"], check=True)
    assert theirs.returncode == ours.returncode == 0, (theirs.stderr, ours.stderr)
    assert seen(ours.stdout, targets) == seen(theirs.stdout, targets)
    assert {line[0] for line in seen(ours.stdout, targets)} & set(targets)
