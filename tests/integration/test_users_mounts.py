"""Mounts of machines with a user namespace: who owns what they show, and what can be written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.hosts import trees
from tests.hosts.leftovers import make_directory
from tests.integration.test_users import copied

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Of each path its owner, and whether a file of root's can be made there, and a directory anew.
PROBE = """
for at in /data /opt /etc /; do
    [ -d $at ] || continue
    if mkdir $at/new 2>/dev/null && touch $at/new/x && [ "$(stat -c %u $at/new/x)" = 0 ] &&
        rm -r $at/new && mkdir $at/new && rmdir $at/new; then w=w; else w=-; fi
    echo $at $(stat -c %u $at) $w
done
"""
WRITTEN, SEEN, NOBODYS = ("0", "w"), ("0", "-"), ("65534", "-")


@pytest.fixture(scope="module")
def shared_tree():
    with copied(trees.build("machine")) as root:
        yield root


@pytest.fixture
def layers():
    """Give a directory on a tmpfs with "low", which has a file of root's, and "up"."""
    place = make_directory("layers")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
    try:
        for name in ("low/kept", "up"):
            (place / name).mkdir(parents=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


@pytest.fixture
def layers_in_var_tmp():
    """Skip where temporary layers, which are made there, would be in an overlay."""
    if subprocess.check_output(["stat", "-f", "-c", "%T", "/var/tmp"]) == b"overlayfs\n":
        pytest.skip("/var/tmp is in an overlay, where overlayfs takes no upper layer")


def owners(pymachine, tree, machine, *options, script=PROBE):
    """Return who owns paths of a machine and whether root inside writes there."""
    done = pymachine("run", "--pipe", "-D", tree, "-M", machine, *options, "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, ""), done
    rows = [line.split() for line in done.stdout.splitlines()]
    return {path: (owner, written) for path, owner, written in rows}


# Of the host's directories the owners are seen by default only: asked for by option, a user
# namespace shows them as systemd-nspawn does, and "idmap" is said of each that shall be mapped.
CASES = [
    (["--overlay={0}/low::/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--overlay=+/etc::/etc"], {"/etc": WRITTEN}, {"/etc": WRITTEN}),
    (["--overlay={0}/low:{0}/up:/data"], {"/data": WRITTEN}, {"/data": NOBODYS}),
    (["--overlay={0}/low:{0}/made:/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--overlay=+/usr:+/opt:/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--overlay=+/::/"], {"/": WRITTEN}, {"/": WRITTEN}),
    (["--overlay-ro=+/etc:{0}/low:/etc"], {"/etc": SEEN}, {"/etc": NOBODYS}),
    (["--overlay-ro={0}/low:+/etc:/data"], {"/data": SEEN}, {"/data": SEEN}),
    (["--bind=:/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--bind-ro=:/data"], {"/data": SEEN}, {"/data": SEEN}),
    (["--bind={0}/low:/data"], {"/data": WRITTEN}, {"/data": NOBODYS}),
    (["--bind={0}/low:/data:idmap"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--bind={0}/low:/data:rootidmap"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--bind=+/srv:/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--tmpfs=/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--volatile=yes"], {"/": WRITTEN}, {"/": WRITTEN}),
    (["--volatile=yes", "--overlay=+/usr::/data"], {"/data": WRITTEN}, {"/data": WRITTEN}),
    (["--volatile=state"], {"/": SEEN}, {"/": SEEN}),
    (["--volatile=overlay"], {"/": WRITTEN, "/etc": WRITTEN}, {"/": WRITTEN, "/etc": WRITTEN}),
    (["--ephemeral"], {"/": WRITTEN, "/etc": WRITTEN}, {"/": WRITTEN, "/etc": WRITTEN}),
    (["--ephemeral", "--overlay=+/etc::/etc"], {"/etc": WRITTEN}, {"/etc": WRITTEN}),
    (["--read-only"], {"/": SEEN, "/etc": SEEN}, {"/": SEEN, "/etc": SEEN}),
    (["--read-only", "--bind=:/opt"], {"/opt": WRITTEN}, {"/opt": WRITTEN}),
    (["--read-only", "--overlay=+/etc::/etc"], {"/etc": WRITTEN}, {"/etc": WRITTEN}),
]


@pytest.mark.parametrize("users", ["default", "pick"])
@pytest.mark.parametrize(("options", "by_default", "picked"), CASES, ids=" ".join)
def test_owners(
    pymachine, shared_tree, machine, layers, users, options, by_default, picked, request
):
    if "::" in "".join(options):
        request.getfixturevalue("layers_in_var_tmp")
    words = [word.format(layers) for word in options]
    wanted = by_default
    if users == "pick":
        words.append("--private-users=pick")
        wanted = picked
    script = f"grep -q ' 65536$' /proc/self/uid_map || exit 3;{PROBE}"
    found = owners(pymachine, shared_tree, machine, *words, script=script)
    assert {path: found[path] for path in wanted} == wanted


def test_what_is_written_to_layers_of_the_host_is_roots(pymachine, shared_tree, machine, layers):
    script = "chown 5 /data/kept && touch /data/new && echo / 0 w"
    owners(
        pymachine, shared_tree, machine, f"--overlay={layers}/low:{layers}/up:/data", script=script
    )
    shown = {entry.name: entry.stat().st_uid for entry in (layers / "up").iterdir()}
    assert shown == {"kept": 5, "new": 0}
    assert [entry.name for entry in layers.iterdir() if entry.name.startswith(".#")] == []


@pytest.mark.usefixtures("layers_in_var_tmp")
def test_lower_directories_can_be_removed_and_made_again(pymachine, shared_tree, machine):
    script = "rm -r /etc/apt && mkdir /etc/apt && ls -A /etc/apt && echo / 0 w"
    for option in ("--ephemeral", "--volatile=overlay", "--overlay=+/etc::/etc"):
        assert owners(pymachine, shared_tree, machine, option, script=script) == {"/": WRITTEN}
    assert os.listdir(shared_tree / "etc/apt")


def test_an_ephemeral_machine_keeps_over_a_reboot_what_it_wrote(pymachine, shared_tree, machine):
    booted = pymachine("boot", "-x", "-D", shared_tree, "-M", machine)
    assert booted.returncode == 0, booted
    mapped = pymachine("exec", machine, "--", "sh", "-c", "touch /kept; cat /proc/self/uid_map")
    assert mapped.stdout.split()[2] == "65536"
    assert pymachine("reboot", machine).returncode == 0
    assert pymachine("exec", machine, "--", "stat", "-c", "%u", "/kept", "/").stdout == "0\n0\n"
    assert pymachine("poweroff", machine).returncode == 0
    assert not (shared_tree / "kept").exists()


def test_by_default_what_cannot_be_mapped_is_mounted_without_a_user_namespace(
    pymachine, shared_tree, machine, tree
):
    script = "grep -q ' 4294967295$' /proc/self/uid_map && echo / 0 w"
    binds = (
        f"--bind={tree}/srv:/data",
        f"--overlay-ro={tree}/srv:/usr:/data",
        "--bind=/proc/version:/srv/version",
    )
    for option in binds:  # of an overlay, and of proc
        assert owners(pymachine, shared_tree, machine, option, script=script) == {"/": WRITTEN}


def test_a_bind_that_cannot_be_mapped_is_refused_beforehand(pymachine, shared_tree, tree):
    bind = f"--bind={tree}/srv:/data:idmap"
    done = pymachine("plan", "-D", shared_tree, "--private-users=pick", bind)
    assert done.returncode == 1
    assert f"The ids of {tree}/srv cannot be mapped: overlay" in done.stderr


@pytest.mark.usefixtures("layers_in_var_tmp")
def test_a_failure_outside_is_undone_on_the_host(pymachine, shared_tree, machine):
    """And not in the mount namespace that the failing step was in: see `leaves_nothing`."""
    command = ("run", "--overlay=+/etc::/etc", "--pipe", "-D", shared_tree, "-M", machine)
    failing = os.environ | {"PYMACHINE_TEST_FAIL": "make-overlay /etc:5"}
    done = pymachine(*command, "--", "true", env=failing)
    assert done.returncode == 1
    assert "injected" in done.stderr
    assert not list(Path("/var/tmp").glob(f"pymachine-{machine}-*"))
    assert pymachine("list", "--no-legend").stdout == ""
