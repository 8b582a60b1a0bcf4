"""`copy-to`, `copy-from` and `bind`: what crosses the border of a machine, and what does not."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.conftest import COMMAND
from tests.integration.test_boot import one_error
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("leaves_nothing"),
]
USERS = {
    "no": ("--private-users=no",),
    "own": ("--private-users=pick", "--private-users-ownership=chown"),
}


@pytest.fixture(params=sorted(USERS))
def booted(request, pymachine, tree, machine):
    """A machine that runs, without and with a user namespace."""
    pymachine("boot", "-q", "-D", tree, "-M", machine, *USERS[request.param], check=True)
    return machine


@pytest.fixture
def things(tmp_path):
    """A tree with what copies like to lose."""
    root = tmp_path / "things"
    (root / "inner").mkdir(parents=True, mode=0o750)
    file = root / "file"
    file.write_text("content")
    os.chown(file, 33, 34)
    file.chmod(0o4751)
    os.setxattr(file, "user.kept", b"yes")
    os.link(file, root / "inner/same")
    (root / "link").symlink_to("/etc/passwd")
    (root / "odd\nname").write_text("")
    os.mkfifo(root / "pipe")
    with open(root / "holes", "wb") as holes:
        holes.truncate(1 << 24)
    os.utime(file, ns=(1, 1_600_000_000_123_456_789))
    return root


def seen(root):
    """Return what there is to see of a tree, by name."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found[os.path.relpath(path, root)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_size,
                status.st_nlink,
                status.st_mtime_ns if not os.path.isdir(path) else 0,
                os.readlink(path) if os.path.islink(path) else "",
                tuple(os.listxattr(path, follow_symlinks=False)),
            )
    return found


def inside(pymachine, machine, script):
    return pymachine("exec", machine, "--", "sh", "-c", script, check=True).stdout


def test_a_tree_comes_back_as_it_went(pymachine, booted, things, tmp_path):
    pymachine("copy-to", booted, things, "/srv/things", check=True)
    listed = inside(pymachine, booted, "stat -c '%n %u %g %a' /srv/things/file; ls -A /srv")
    assert listed == "/srv/things/file 33 34 4751\nthings\n"
    pymachine("copy-from", booted, "/srv/things", tmp_path / "back", check=True)
    assert seen(tmp_path / "back") == seen(things)
    assert os.stat(tmp_path / "back/holes").st_blocks == 0
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_a_file_is_copied_under_another_name(pymachine, booted, things, tmp_path):
    pymachine("copy-to", booted, things / "file", "/root/other", check=True)
    assert inside(pymachine, booted, "cat /root/other; stat -c %u /root/other") == "content33\n"
    pymachine("copy-from", booted, "/root/other", tmp_path / "again", check=True)
    assert (tmp_path / "again").read_text() == "content"
    pymachine("copy-from", booted, "/root/../proc/1/comm", tmp_path / "comm", check=True)


def test_what_is_there_is_replaced_by_force_alone(pymachine, booted, things):
    inside(
        pymachine, booted, "mkdir /srv/there; echo old >/srv/there/file; echo own >/srv/there/own"
    )
    assert "exists already" in one_error(pymachine("copy-to", booted, things, "/srv/there"))
    assert inside(pymachine, booted, "cat /srv/there/file") == "old\n"
    pymachine("copy-to", "--force", booted, things, "/srv/there", check=True)
    assert inside(pymachine, booted, "cat /srv/there/file /srv/there/own") == "contentown\n"
    pymachine("copy-to", "--force", booted, things / "link", "/srv/there/own", check=True)
    assert inside(pymachine, booted, "readlink /srv/there/own") == "/etc/passwd\n"
    said = one_error(pymachine("copy-to", "--force", booted, things / "file", "/srv/there"))
    assert "is a directory" in said


def test_links_inside_lead_nowhere_but_inside(pymachine, booted, things, tmp_path):
    inside(pymachine, booted, "ln -s /etc /srv/out; ln -s ../../../../../../etc /srv/up")
    name = f"pymachine-{os.getpid()}"
    for number, link in enumerate(("out", "up")):
        pymachine("copy-to", booted, things / "file", f"/srv/{link}/{name}-{number}", check=True)
        assert inside(pymachine, booted, f"cat /etc/{name}-{number}") == "content"
        assert not os.path.exists(f"/etc/{name}-{number}")
    inside(pymachine, booted, "ln -s /etc/shadow /srv/secret")
    pymachine("copy-from", booted, "/srv/secret", tmp_path / "secret", check=True)
    assert os.readlink(tmp_path / "secret") == "/etc/shadow"


def test_what_changes_meanwhile_leads_nowhere(pymachine, booted, things):
    """A process inside swaps a directory for a link, again and again, while we write into it."""
    marker = f"/etc/pymachine-race-{os.getpid()}"
    (things / "inner" / os.path.basename(marker)).write_text("")
    swap = (
        "mkdir -p /srv/t/inner; while :; do mv /srv/t/inner /srv/t/x; ln -s /etc /srv/t/inner;"
        " rm /srv/t/inner; mv /srv/t/x /srv/t/inner; done"
    )
    racer = subprocess.Popen([*COMMAND, "exec", booted, "--", "sh", "-c", swap])
    try:
        for _ in range(10):
            pymachine("copy-to", "--force", booted, things, "/srv/t")
            assert not os.path.exists(marker)
    finally:
        racer.terminate()
        racer.wait()


def test_a_mount_with_mapped_ids_takes_copies(pymachine, booted, things, tmp_path):
    """As the root itself is one, where it is a disk image."""
    tmp_path.joinpath("bound").mkdir()
    pymachine("bind", "--mkdir", booted, tmp_path / "bound", "/srv/bound", check=True)
    for options, name in (((), "link"), ((), "file"), (("--force",), "file")):
        pymachine("copy-to", *options, booted, things / name, "/srv/bound/copy-" + name, check=True)
    status = inside(pymachine, booted, "cd /srv/bound; stat -c '%n %u %g %a' *; ls -A")
    assert status == "copy-file 33 34 4751\ncopy-link 0 0 777\ncopy-file\ncopy-link\n"
    said = one_error(pymachine("copy-to", booted, things / "file", "/srv/bound/copy-file"))
    assert "exists already" in said


def test_bad_copies_are_one_line(pymachine, booted, things, tmp_path):
    assert "no absolute path" in one_error(pymachine("copy-to", booted, things, "srv/x"))
    assert "/none in machine" in one_error(pymachine("copy-to", booted, things, "/none/x"))
    assert "There is no" in one_error(pymachine("copy-from", booted, "/none", tmp_path / "x"))
    assert "root itself" in one_error(pymachine("copy-from", booted, "/", tmp_path / "x"))
    assert "on this host" in one_error(pymachine("copy-from", booted, "/etc", "/none/x"))
    one_error(pymachine("copy-to", booted), 2)
    assert "'none'" in one_error(pymachine("copy-to", "none", things))
    assert not (tmp_path / "x").exists()


def test_an_interrupted_copy_leaves_nothing(pymachine, booted, tree, tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(64))
    process = subprocess.Popen(
        [*COMMAND, "copy-to", booted, tmp_path / "large", "/root/large"], stderr=subprocess.PIPE
    )
    wait_for(
        lambda: (
            any(name.startswith(".#pymachine") for name in os.listdir(tree / "root"))
            or process.poll() is not None
        )
    )
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1].decode()
    if process.returncode:  # else it was faster
        assert "Interrupted by SIGTERM" in said
        assert "large" not in os.listdir(tree / "root")
    assert not any(name.startswith(".#pymachine") for name in os.listdir(tree / "root"))


def test_only_root_copies(booted, things):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for words in (("copy-to", booted, "/etc/passwd", "/srv/x"), ("bind", booted, "/etc", "/srv")):
        command = [*nobody, *COMMAND, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Only root" in one_error(done)


def test_a_directory_is_bound(pymachine, booted, things):
    refused = pymachine("bind", booted, things, "/srv/a/b")
    assert "/srv/a/b in machine" in one_error(refused)
    assert "--mkdir" in refused.stderr
    pymachine("bind", booted, things, "/srv/a/b", "--mkdir", check=True)
    assert inside(pymachine, booted, "stat -c %u /srv/a/b/file; touch /srv/a/b/new") == "33\n"
    status = os.stat(things / "new")
    assert (status.st_uid, status.st_gid) == (0, 0)
    (things / "later").mkdir()
    assert "later" in inside(pymachine, booted, "ls /srv/a/b")


def test_a_file_is_bound_read_only(pymachine, booted, things):
    pymachine("bind", booted, things / "file", "/root/bound", "--mkdir", "--read-only", check=True)
    assert inside(pymachine, booted, "cat /root/bound; echo x >/root/bound || true") == "content"
    assert "directory" in one_error(pymachine("bind", booted, things / "file", "/srv"))


def test_a_bound_place_is_inside(pymachine, booted, things):
    inside(pymachine, booted, "ln -s /etc /srv/out")
    name = f"pymachine-bound-{os.getpid()}"
    pymachine("bind", booted, things, f"/srv/out/{name}", "--mkdir", check=True)
    assert "file" in inside(pymachine, booted, f"ls /etc/{name}")
    assert not os.path.exists(f"/etc/{name}")
