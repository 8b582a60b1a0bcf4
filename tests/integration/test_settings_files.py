"""`.nspawn` files on real machines: found, believed as far as they may be, and shown."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PROBE = "hostname; ulimit -n; echo $A; grep -c ' /srv ' /proc/self/mountinfo; pwd"


@pytest.fixture
def settings(machine):
    """Write a trusted settings file of the machine; gone afterwards."""
    path = f"/run/systemd/nspawn/{machine}.nspawn"
    drop_ins = f"{path}.d"
    os.makedirs("/run/systemd/nspawn", exist_ok=True)

    def write(text, drop_in=""):
        if drop_in:
            os.makedirs(drop_ins, exist_ok=True)
        with open(f"{drop_ins}/{drop_in}" if drop_in else path, "w", encoding="utf-8") as file:
            file.write(text)

    yield write
    for entry in os.listdir(drop_ins) if os.path.isdir(drop_ins) else ():
        os.unlink(f"{drop_ins}/{entry}")
    if os.path.isdir(drop_ins):
        os.rmdir(drop_ins)
    if os.path.exists(path):
        os.unlink(path)


TEXT = """\
[Exec]
Hostname=by-file
LimitNOFILE=123
Environment=A=fromfile
WorkingDirectory=/usr
Parameters=/bin/sh -c "hostname; pwd"
[Files]
TemporaryFileSystem=/srv
[Network]
Private=yes
[X-Somebody]
Else=1
"""


def test_a_settings_file_is_obeyed_and_options_come_first(pymachine, tree, machine, settings):
    settings(TEXT)
    run = ("run", "-D", tree, "-M", machine)
    assert pymachine(*run, "--", "/bin/sh", "-c", PROBE).stdout.split() == [
        *("by-file", "123", "fromfile", "1", "/usr"),
    ]
    assert pymachine(*run).stdout.split() == ["by-file", "/usr"]
    options = ("--hostname=mine", "--tmpfs=", "--rlimit=NOFILE=77")
    assert pymachine(*run, *options, "--", "/bin/sh", "-c", PROBE).stdout.split() == [
        *("mine", "77", "fromfile", "0", "/usr"),
    ]
    done = pymachine(*run, "--settings=no", "--", "/bin/sh", "-c", PROBE)
    assert done.stdout.split()[0] == machine
    done = pymachine(*run, "--settings=override", "--hostname=mine", "--", "/bin/hostname")
    assert done.stdout == "by-file\n"


def test_a_network_of_its_own_can_be_taken_back(pymachine, tree, machine, settings):
    settings("[Network]\nPrivate=yes\n")
    count = ("--", "/bin/sh", "-c", "cat /proc/net/dev | wc -l")
    run = ("run", "-D", tree, "-M", machine)
    alone = pymachine(*run, *count).stdout
    with open("/proc/net/dev", encoding="utf-8") as file:
        host = len(file.readlines())
    assert int(alone) == 3
    assert int(pymachine(*run, "--private-network=no", *count).stdout) == host


def test_drop_ins_come_after_the_file(pymachine, tree, machine, settings):
    settings("[Exec]\nHostname=first\n")
    settings("[Exec]\nHostname=second\n", "10-name.conf")
    assert pymachine("run", "-D", tree, "-M", machine, "--", "/bin/hostname").stdout == "second\n"


def test_a_wrong_value_is_told_with_file_and_line(pymachine, tree, machine, settings):
    settings("[Exec]\nHostname=x\nBoot=maybe\n")
    done = pymachine("run", "-D", tree, "-M", machine, "--", "/bin/true")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{machine}.nspawn:3: Boot=maybe: expected yes or no" in line


def test_what_cannot_be_read_is_told(pymachine, tree, machine, settings):
    """As by systemd-nspawn, which passes over what is missing alone; so a link to nothing is."""
    path, run = f"/run/systemd/nspawn/{machine}.nspawn", ("run", "-D", tree, "-M", machine)
    settings("")
    for target, says in ((path, "Too many levels"), ("/usr", "Is a directory"), ("/gone", "")):
        os.unlink(path)
        os.symlink(target, path)
        done = pymachine(*run, "--", "/bin/echo", "ran")
        assert (done.stdout, done.returncode) == (("", 1) if says else ("ran\n", 0))
        assert done.stderr.count("\n") == bool(says)
        assert says in done.stderr
        if says:
            assert f"Failed to read {path}: " in done.stderr
        os.unlink(path)
        settings("")
    os.symlink(f"{path}.d", f"{path}.d")
    try:
        done = pymachine(*run, "--", "/bin/true")
        assert done.returncode == 1
        assert f"Failed to read {path}.d: Too many levels" in done.stderr
    finally:
        os.unlink(f"{path}.d")


def test_quiet_leaves_all_output_to_the_command(pymachine, tree, machine, settings):
    settings("[Exec]\nNoSuchKey=1\n")
    run = ("run", "-D", tree, "-M", machine)
    words = ("--", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert "NoSuchKey= in [Exec] is not known" in pymachine(*run, *words).stderr
    for option in ("-q", "--quiet"):
        done = pymachine(*run, option, *words)
        assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
    done = pymachine(*run, "-q", "--", "/bin/no-such-command")
    assert "/bin/no-such-command" in done.stderr
    assert done.returncode == 127


def test_a_file_beside_the_root_may_not_open_the_host(pymachine, tree, machine):
    beside = tree.parent / f"{machine}.nspawn"
    beside.write_text("[Exec]\nHostname=beside\n[Files]\nBind=/etc:/srv\n")
    try:
        run = ("run", "-D", tree, "-M", machine)
        done = pymachine(*run, "--", "/bin/sh", "-c", "hostname; ls /srv | wc -l")
        assert (done.stdout.split(), done.returncode) == (["beside", "0"], 0)
        assert "is not trusted" in done.stderr
        trusted = ("--settings=trusted", "--", "/bin/sh", "-c", "ls /srv | wc -l")
        assert int(pymachine(*run, *trusted).stdout) > 10
    finally:
        beside.unlink()


def test_settings_are_shown_and_make_the_same_machine(pymachine, tree, machine, settings):
    settings("[Exec]\nHostname=shown\nEnvironment=A=1\n[Files]\nTemporaryFileSystem=/srv\n")
    planned = pymachine("plan", "-D", tree, "-M", machine, "--show-settings").stdout
    assert f"# /run/systemd/nspawn/{machine}.nspawn:2: Hostname\nHostname=shown\n" in planned
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    shown = pymachine("show", machine, "--settings").stdout
    pymachine("terminate", machine, check=True)
    assert "TemporaryFileSystem=/srv:mode=0755\n" in shown
    settings(shown)
    again = pymachine("plan", "-D", tree, "-M", machine, "--show-settings").stdout
    without = [line for line in again.splitlines() if not line.startswith("#")]
    assert without == [line for line in shown.splitlines() if not line.startswith("#")]


def test_what_no_step_does_is_refused(pymachine, tree, machine):
    done = pymachine("run", "-D", tree, "-M", machine, "--mstack=/x", "--", "/bin/true")
    assert (done.returncode, done.stdout) == (1, "")
    assert "are not supported" in done.stderr
