"""What a machine is called and given: clocks, user, files of /etc, credentials, journal."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from machinectl_py.config.credentials import encode
from machinectl_py.config.spec import (
    BindMount,
    BindUserSpec,
    CredentialSpec,
    JournalForwardSpec,
    NetworkSpec,
    RootSpec,
    TimeSpec,
    UsersSpec,
)
from machinectl_py.kernel.namespaces import time_offsets
from machinectl_py.runtime.state import find_running
from tests.hosts.apart import systemd_runs
from tests.integration import specs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SECOND = 1_000_000_000


def shell(tree, machine, script, **changes):
    """Return what a shell in a machine prints."""
    done = specs.run(specs.make_spec(tree, machine, "/bin/sh", "-c", script, **changes))
    assert done.returncode == 0, done
    return done.stdout


def by_nspawn(tree, script, *options):
    """Return what the same shell prints under systemd-nspawn, which must work on this host."""
    if not systemd_runs():
        pytest.skip("needs systemd-nspawn under systemd")
    command = ["systemd-nspawn", "--quiet", "--pipe", "--directory", str(tree), *options]
    done = subprocess.run(
        [*command, "/bin/sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    if "for bind mount" in done.stderr:  # 257 idmaps a journal, needed or not: not on an overlay
        pytest.skip(f"systemd-nspawn fails here: {done.stderr}")
    assert done.returncode == 0, done
    return done.stdout


# Clocks


def test_clocks_start_as_told(tree, machine):
    times = TimeSpec(monotonic=5 * SECOND, boottime=1000 * SECOND)
    script = "cat /proc/uptime; cat /proc/self/timens_offsets"
    uptime, *offsets = shell(tree, machine, script, time=times).splitlines()
    assert 1000 <= float(uptime.split()[0]) < 1020
    inside = int(offsets[0].split()[1]) * SECOND + int(offsets[0].split()[2])
    monotonic = time.monotonic_ns() + inside - time_offsets()["monotonic"]
    assert 5 * SECOND <= monotonic < 25 * SECOND


def test_clocks_are_the_hosts_where_they_are_shared(tree, machine):
    inside = shell(tree, machine, "readlink /proc/self/ns/time", time=TimeSpec(private=False))
    assert inside.strip() == os.readlink("/proc/self/ns/time")


def test_shared_clocks_cannot_be_set(tree, machine):
    spec = specs.make_spec(tree, machine, "true", time=TimeSpec(private=False, boottime=1))
    done = specs.run(spec)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "clocks" in done.stderr


# User and environment


@pytest.fixture
def user(tree):
    """Add a user with a home that is missing, and groups."""
    with (tree / "etc/passwd").open("a") as file:
        file.write("alice:x:1234:1300::/home/deep/alice:/bin/bash\n")
    with (tree / "etc/group").open("a") as file:
        file.write("alice:x:1300:\nwheel:x:1301:bob,alice\n")
    return "alice"


WHO = "id -u; id -g; id -G; pwd; stat -c '%u %g %a' $HOME; env | grep -E '^(HOME|USER|LOGNAME)='"


@pytest.mark.parametrize("name", ["alice", "1234"])
def test_the_payload_is_a_user_of_the_machine(tree, machine, user, name):
    shown = shell(tree, machine, WHO, payload={"user": name}).splitlines()
    assert shown[:5] == ["1234", "1300", "1300 1301", "/", "1234 1300 755"]
    assert set(shown[5:]) == {"HOME=/home/deep/alice", f"USER={user}", f"LOGNAME={user}"}


def test_the_user_is_as_systemd_nspawn_has_it(tree, machine, user):
    ours = shell(tree, machine, WHO, payload={"user": user})
    assert sorted(ours.split("\n")) == sorted(by_nspawn(tree, WHO, f"--user={user}").split("\n"))


def test_a_user_has_no_capabilities_but_the_bounding_set(tree, machine, user):
    script = "grep -E 'Cap(Prm|Eff|Inh|Amb)' /proc/self/status | grep -v 0000000000000000; true"
    assert shell(tree, machine, script, payload={"user": user}) == ""
    bound = "grep CapBnd /proc/self/status"
    assert shell(tree, machine, bound, payload={"user": user}) == shell(tree, machine, bound)


def test_a_user_owns_the_terminal(tree, machine, user):
    spec = specs.make_spec(
        tree,
        machine,
        *("/bin/sh", "-c", "stat -c %U $(tty)"),
        payload={"user": user, "working_directory": "/tmp"},
        console="read-only",
    )
    assert "alice" in specs.run(spec).stdout


def test_a_user_whom_only_nss_knows_is_asked_of_getent(tree, machine):
    getent = tree / "usr/bin/getent"
    getent.unlink()
    getent.write_text(
        textwrap.dedent(
            """\
            #!/bin/sh
            [ "$2 $3" = "passwd far" ] && echo far:x:777:778::/home/far:/bin/sh
            [ "$2 $3" = "initgroups far" ] && echo far 778 779
            """
        )
    )
    getent.chmod(0o755)
    shown = shell(tree, machine, "id -u; id -G", payload={"user": "far"})
    assert shown.split() == ["777", "778", "779"]


def test_a_user_who_does_not_exist_is_told(tree, machine):
    done = specs.run(specs.make_spec(tree, machine, "true", payload={"user": "nobody-at-all"}))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "nobody-at-all" in done.stderr


def test_a_home_cannot_lead_out_of_the_root(tree, machine, tmp_path):
    with (tree / "etc/passwd").open("a") as file:
        file.write("eve:x:1235:1235::/away/home:/bin/bash\n")
    (tree / "away").symlink_to(f"/../../../..{tmp_path}")
    specs.run(specs.make_spec(tree, machine, "true", payload={"user": "eve"}))
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_that_of_systemd_nspawn(tree, machine):
    ours = dict(line.split("=", 1) for line in shell(tree, machine, "env").splitlines())
    theirs = dict(line.split("=", 1) for line in by_nspawn(tree, "env").splitlines())
    differ = {"container", "container_uuid", "TERM"}
    assert {k: v for k, v in ours.items() if k not in differ} == {
        k: v for k, v in theirs.items() if k not in differ
    }


# Files of /etc


def test_the_time_zone_of_the_host_is_linked(tree, machine):
    (tree / "etc/localtime").unlink(missing_ok=True)
    zone = os.readlink("/etc/localtime").rpartition("zoneinfo/")[2]
    shell(tree, machine, "true", timezone="auto")
    assert os.readlink(tree / "etc/localtime") == f"../usr/share/zoneinfo/{zone}"


def test_a_time_zone_that_the_machine_lacks_is_bound(tree, machine):
    shutil.rmtree(tree / "usr/share/zoneinfo")
    (tree / "etc/localtime").unlink(missing_ok=True)
    mounts = shell(tree, machine, "grep localtime /proc/self/mountinfo", timezone="symlink")
    assert " ro,nosuid,nodev" in mounts


@pytest.mark.parametrize("mode", ["copy", "bind"])
def test_the_time_zone_is_copied_or_bound(tree, machine, mode):
    (tree / "etc/localtime").unlink(missing_ok=True)
    script = "test ! -L /etc/localtime; cat /etc/localtime | sha256sum; umount /etc/localtime; :"
    shown = shell(tree, machine, script, timezone=mode)
    wanted = subprocess.run(["sha256sum", "/etc/localtime"], capture_output=True, check=True)
    assert shown.split()[0] == wanted.stdout.split()[0].decode()
    assert (tree / "etc/localtime").stat().st_size > 0 or mode == "bind"


RESOLV = "/etc/resolv.conf"


def test_resolv_conf_is_copied_but_not_through_a_link(tree, machine):
    host, target = Path(RESOLV).read_text(), tree / "etc/resolv.conf"
    target.write_text("nameserver 192.0.2.1\n")
    shell(tree, machine, "true", resolv_conf="copy-host")
    assert target.read_text() == host
    target.unlink()
    (tree / "run/stub").write_text("kept")
    target.symlink_to("../run/stub")
    shell(tree, machine, "true", resolv_conf="copy-host")
    assert os.readlink(target) == "../run/stub"
    shell(tree, machine, "true", resolv_conf="replace-host")
    assert not target.is_symlink()
    assert target.read_text() == host
    assert (tree / "run/stub").read_text() == "kept"


def test_resolv_conf_never_writes_to_a_device(tree, machine):
    target = tree / "etc/resolv.conf"
    target.unlink()
    os.mknod(target, 0o20666, os.makedev(1, 3))
    done = specs.run(specs.make_spec(tree, machine, "true", resolv_conf="copy-host"))
    assert (done.returncode, "stays as it is" in done.stderr) == (0, True)


def test_resolv_conf_is_bound_read_only(tree, machine):
    script = f"grep {RESOLV} /proc/self/mountinfo; cat {RESOLV}"
    shown = shell(tree, machine, script, resolv_conf="bind-host")
    assert " ro,nosuid,nodev" in shown
    assert Path(RESOLV).read_text() in shown


def test_resolv_conf_can_be_deleted(tree, machine):
    shell(tree, machine, "true", resolv_conf="delete")
    assert not (tree / "etc/resolv.conf").exists()


def test_a_private_network_keeps_its_resolv_conf(tree, machine):
    (tree / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    network = NetworkSpec(kind="private")
    shown = shell(tree, machine, f"cat {RESOLV}", resolv_conf="auto", network=network)
    assert shown == "nameserver 192.0.2.1\n"


def test_a_read_only_root_is_no_reason_to_fail(tree, machine):
    done = specs.run(
        specs.make_spec(
            tree,
            machine,
            "true",
            rootfs=RootSpec(read_only=True),
            resolv_conf="copy-host",
            timezone="copy",
        )
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_file_of_the_host_is_told_and_passed_over(tree, machine):
    if os.path.exists("/run/systemd/resolve/resolv.conf"):
        pytest.skip("systemd-resolved runs here")
    done = specs.run(specs.make_spec(tree, machine, "true", resolv_conf="copy-uplink"))
    assert (done.returncode, "stays as it is" in done.stderr) == (0, True)


FILES = "ls -l --time-style=+ /etc/resolv.conf /etc/localtime; grep ' /etc/' /proc/self/mountinfo"


@pytest.mark.parametrize("mode", ["auto", "copy-host", "replace-host", "delete", "off"])
def test_resolv_conf_is_as_systemd_nspawn_has_it(each_tree, machine, mode):
    script = f"stat -c '%F %a %s' {RESOLV} || true"
    options = (f"--resolv-conf={mode}", "--timezone=off")
    target = each_tree / "etc/resolv.conf"
    for before in ("file", "link"):
        seen = []
        for start in (
            lambda: shell(each_tree, machine, script, resolv_conf=mode),
            lambda: by_nspawn(each_tree, script, *options),
        ):
            target.unlink(missing_ok=True)
            if before == "file":
                target.write_text("nameserver 192.0.2.1\n")
            else:
                target.symlink_to("/run/nowhere")
            seen.append(start())
        assert seen[0] == seen[1], before


@pytest.mark.parametrize("mode", ["auto", "copy", "bind", "symlink", "delete", "off"])
def test_the_time_zone_is_as_systemd_nspawn_has_it(each_tree, machine, mode):
    script = "ls -l --time-style=+ /etc/localtime; grep -c localtime /proc/self/mountinfo; true"
    target = each_tree / "etc/localtime"
    seen = []
    for start in (
        lambda: shell(each_tree, machine, script, timezone=mode),
        lambda: by_nspawn(each_tree, script, f"--timezone={mode}", "--resolv-conf=off"),
    ):
        target.unlink(missing_ok=True)
        target.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
        seen.append(start())
    assert seen[0] == seen[1]


# Credentials


def test_credentials_are_for_root_alone_and_never_swapped(tree, machine):
    script = (
        "cat $CREDENTIALS_DIRECTORY/greeting; stat -c '%a %u' $CREDENTIALS_DIRECTORY/*;"
        " stat -c %a $CREDENTIALS_DIRECTORY; touch $CREDENTIALS_DIRECTORY/x 2>&1;"
        " grep /run/host/credentials /proc/self/mountinfo"
    )
    credentials = (encode("greeting", b"hello\n"), encode("large.one", os.urandom(200_000)))
    shown = shell(tree, machine, script, credentials=credentials)
    lines = shown.splitlines()
    assert lines[:4] == ["hello", "400 0", "400 0", "500"]
    assert "Read-only" in lines[4]
    assert " ro,nosuid,nodev,noexec" in lines[5]
    assert "noswap" in lines[5] or " ramfs " in lines[5]


@pytest.mark.parametrize(
    "wrong",
    [
        (encode("../x", b""),),
        (encode("a", b""), encode("a", b"")),
        (encode("a", bytes(1 << 20)), encode("b", b"1")),
        (CredentialSpec(name="a", data="%"),),
    ],
)
def test_credentials_that_cannot_be_are_refused(tree, machine, wrong):
    done = specs.run(specs.make_spec(tree, machine, "true", credentials=wrong))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_credentials_are_told_to_nobody_else(tree, machine, pymachine):
    spec = specs.make_spec(
        tree,
        machine,
        credentials=(encode("secret", b"swordfish"),),
        payload={"kind": "boot"},
        console="background",
    )
    assert specs.run(spec, "background").returncode == 0
    directory = Path("/run/pymachine/machines", machine)
    secret = encode("secret", b"swordfish").data
    for path in directory.iterdir():
        if path.is_file() and secret in path.read_text(errors="replace"):
            assert path.name == "spec.json"
    for name in ("spec.json", "facts.json"):  # which holds passwords of bound users
        assert (directory / name).stat().st_mode & 0o077 == 0
    shown = pymachine("exec", machine, "--", "systemd-creds", "list", "--system").stdout
    assert "secret" in shown
    pymachine("reboot", machine, check=True)
    assert "secret" in pymachine("exec", machine, "--", "systemd-creds", "list", "--system").stdout
    pymachine("terminate", machine, check=True)


# Journal


@pytest.fixture
def host_journal():
    """A machine ID, and what is of it in the host's journal, which goes at the end."""
    identity = uuid.uuid4().hex
    place = Path("/var/log/journal", identity)
    made = not place.parent.exists()
    if made:
        place.parent.mkdir()
    yield identity, place
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    if made:
        shutil.rmtree(place.parent, ignore_errors=True)


def test_the_hosts_journal_is_bound(tree, machine, host_journal):
    identity, place = host_journal
    spec = {"machine_id": identity, "link_journal": "host"}
    shell(tree, machine, f"echo x >{place}/there", **spec)
    assert (place / "there").read_text() == "x\n"
    assert list((tree / "var/log/journal" / identity).iterdir()) == []


def test_the_guests_journal_is_linked(tree, machine, host_journal):
    identity, place = host_journal
    spec = {"machine_id": identity, "link_journal": "guest"}
    shell(tree, machine, f"echo x >{place}/there", **spec)
    assert os.readlink(place) == f"{tree}/var/log/journal/{identity}"
    assert (place / "there").read_text() == "x\n"
    shell(tree, machine, f"test -s {place}/there", machine_id=identity, link_journal="auto")


def test_by_default_a_journal_is_bound_where_the_host_has_a_place(tree, machine, host_journal):
    identity, place = host_journal
    spec = {"machine_id": identity, "link_journal": "auto"}
    script = f"grep -c {identity} /proc/self/mountinfo; true"
    assert shell(tree, machine, script, **spec) == "0\n"
    assert not place.exists()
    place.mkdir()
    assert shell(tree, machine, script, **spec) == "1\n"
    ephemeral = RootSpec(ephemeral=True)
    plan = specs.make_spec(tree, machine, "true", **spec, rootfs=ephemeral)
    assert "attach-journal" not in plan_names(plan)


def plan_names(spec):
    from machinectl_py.plan.build import build_plan
    from machinectl_py.plan.facts import probe_facts

    facts = probe_facts(spec.root, manager="embedded", register=False, foreground=True)
    return [step.name for step in build_plan(spec, facts).steps]


@pytest.mark.parametrize("lenient", [False, True])
def test_a_journal_that_cannot_be_linked(tree, machine, host_journal, lenient):
    identity, place = host_journal
    spec = {"machine_id": identity, "link_journal": "host", "link_journal_try": lenient}
    there = BindMount(source=str(tree / "home"), target=str(place))
    done = specs.run(specs.make_spec(tree, machine, "true", mounts=(there,), **spec))
    assert done.returncode == (0 if lenient else 1)
    assert bool(done.stderr) is not lenient


def test_the_hosts_own_journal_is_not_linked(tree, machine):
    own = Path("/etc/machine-id").read_text().strip()
    if not own:
        pytest.skip("this host has no machine ID")
    spec = specs.make_spec(tree, machine, "true", machine_id=own, link_journal="host")
    assert "same machine ID" in specs.run(spec).stderr
    assert specs.run(spec.replace(link_journal="auto")).returncode == 0


@pytest.mark.parametrize("mode", ["host", "guest", "try-host", "try-guest", "auto"])
def test_the_journal_is_as_systemd_nspawn_has_it(tree, machine, host_journal, mode):
    identity, place = host_journal
    (tree / "etc/machine-id").write_text(f"{identity}\n")
    script = f"stat -c '%F %a' {place}; grep -c {identity} /proc/self/mountinfo; true"

    def state():
        link = os.readlink(place) if place.is_symlink() else ""
        made = place.exists()
        if link:
            place.unlink()
        shutil.rmtree(place, ignore_errors=True)
        return link, made

    ours = shell(
        tree,
        machine,
        script,
        machine_id=identity,
        link_journal=mode.removeprefix("try-"),
        link_journal_try=mode.startswith("try-"),
    )
    ours_after = state()
    theirs = by_nspawn(tree, script, f"--link-journal={mode}")
    assert (ours, ours_after) == (theirs, state())


RECEIVER = """\
#!/usr/bin/python3
import os, signal, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid())
assert "SECRET" not in os.environ
print(sys.argv[1:], file=open(f"{sys.argv[1].partition('=')[2]}/words", "w"))
listener = socket.socket(fileno=3)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
out = open(f"{sys.argv[1].partition('=')[2]}/stream", "ab", buffering=0)
while True:
    end, _ = listener.accept()
    while data := end.recv(65536):
        out.write(data)
"""


def receiver(directory, text):
    program = directory / "systemd-journal-remote"
    program.write_text(text)
    program.chmod(0o755)
    return os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "SECRET": "1"}


def test_the_journal_is_forwarded_for_as_long_as_the_machine_lives(
    pymachine, machine, tmp_path, tree_of_trixie
):
    output = tmp_path / "out"
    wanted = JournalForwardSpec(path=str(output), limits=(("MaxUse", "1G"), ("MaxFiles", "3")))
    spec = specs.make_spec(
        tree_of_trixie,
        machine,
        payload={"kind": "boot"},
        console="background",
        journal_forward=wanted,
    )
    started = specs.run(spec, "background", env=receiver(tmp_path, RECEIVER))
    assert started.returncode == 0, started
    words = (output / "words").read_text()
    for word in (f"--output={output}", "--split-mode=host", "--max-use=1G", "--max-files=3"):
        assert f"'{word}'" in words
    stream = output / "stream"
    assert _eventually(lambda: b"MESSAGE=" in stream.read_bytes())
    pymachine("exec", machine, "--", "systemd-cat", "-t", "tests", "echo", "first", check=True)
    assert _eventually(lambda: b"MESSAGE=first\n" in stream.read_bytes())
    pymachine("reboot", machine, check=True)
    pymachine("exec", machine, "--", "systemd-cat", "-t", "tests", "echo", "second", check=True)
    assert _eventually(lambda: b"MESSAGE=second\n" in stream.read_bytes())
    pymachine("poweroff", machine, check=True)


@pytest.fixture
def tree_of_trixie():
    from tests.hosts.overlay import private_copy
    from tests.hosts.trees import build

    with private_copy(build("machine", "trixie")) as root:
        yield root


def _eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_receiver_that_does_not_start_is_told_in_one_line(tree, machine, tmp_path):
    wanted = JournalForwardSpec(path=str(tmp_path / "out.journal"))
    spec = specs.make_spec(tree, machine, "true", journal_forward=wanted)
    broken = receiver(tmp_path, "#!/bin/sh\necho unknown option >&2\nexit 1\n")
    done = specs.run(spec, env=broken)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "unknown option" in done.stderr


def test_without_a_receiver_no_journal_is_forwarded(tree, machine, tmp_path):
    if os.path.exists("/usr/lib/systemd/systemd-journal-remote"):
        pytest.skip("systemd-journal-remote is installed")
    wanted = JournalForwardSpec(path=str(tmp_path / "out"))
    done = specs.run(specs.make_spec(tree, machine, "true", journal_forward=wanted))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "not installed" in done.stderr
    assert find_running(machine) is None


# Users of the host


@pytest.fixture
def host_user(tmp_path):
    """A user of the host, with a password and a home with a file, gone at the end."""
    name = f"bound{os.getpid()}"
    home = tmp_path / "home"
    base = ("--no-create-home", "--home-dir", str(home), "--shell", "/bin/dash", "--user-group")
    subprocess.run(["useradd", *base, "--password", "$6$x$hash", name], check=True)
    home.mkdir()
    (home / "file").write_text("mine\n")
    shutil.chown(home / "file", name, name)
    yield name
    subprocess.run(["userdel", name], check=True, stderr=subprocess.DEVNULL)


def with_nss_systemd(tree):
    """Have the machine look users up by nss-systemd, of this host, as Debian ships it apart."""
    library = Path(f"/lib/{os.uname().machine}-linux-gnu/libnss_systemd.so.2")
    shutil.copy(library, tree / str(library.parent).lstrip("/"))
    switch = tree / "etc/nsswitch.conf"
    lines = ("passwd: files systemd", "group: files systemd", "shadow: files systemd")
    switch.write_text("\n".join((*lines, "initgroups: files systemd", "")))


def test_users_of_the_host_are_users_inside(tree, machine, host_user):
    with_nss_systemd(tree)
    script = (
        f"getent passwd {host_user}; id -Gn {host_user}; stat -c %a /run/host/userdb/*privileged;"
        f" cat /run/host/home/{host_user}/file; getent shadow {host_user}; ls /run/host/userdb"
    )
    shown = shell(
        tree,
        machine,
        script,
        users=UsersSpec(mode="fixed", base=1 << 20),
        bind_users=BindUserSpec(names=(host_user,), shell="host", groups=("games",)),
    ).splitlines()
    home = f"/run/host/home/{host_user}"
    assert shown[0].split(":")[:4] == [host_user, "x", "60514", "60514"]
    assert shown[0].split(":")[5:] == [home, "/bin/dash"]
    assert set(shown[1].split()) == {host_user, "games"}
    assert "600" in shown[2:4]
    assert "mine" in shown
    assert f"{host_user}:$6$x$hash:" in "\n".join(shown)
    assert {"60514.user", f"{host_user}.user", "60514.group"} <= set(shown)


def test_the_payload_can_be_a_user_of_the_host(tree, machine, host_user):
    with_nss_systemd(tree)
    shown = shell(
        tree,
        machine,
        "id -u; echo $HOME",
        payload={"user": host_user},
        users=UsersSpec(mode="fixed", base=1 << 20),
        bind_users=BindUserSpec(names=(host_user,)),
    )
    assert shown.split() == ["60514", f"/run/host/home/{host_user}"]


@pytest.mark.parametrize(
    ("name", "mode", "why"),
    [
        ("no-such-user", "fixed", "no user"),
        ("root", "fixed", "cannot be bound"),
        ("daemon", "fixed", "already"),
        ("daemon", "no", "user namespace"),
    ],
)
def test_users_who_cannot_be_bound_are_refused(tree, machine, name, mode, why):
    users = UsersSpec(mode=mode, base=1 << 20)
    bind = BindUserSpec(names=(name,))
    done = specs.run(specs.make_spec(tree, machine, "true", users=users, bind_users=bind))
    assert (done.returncode, why in done.stderr) == (1, True), done
