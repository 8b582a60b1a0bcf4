"""`pymachine nspawn` stands in for systemd-nspawn: options, exit codes, its name."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.conftest import COMMAND
from tests.hosts.apart import systemd_runs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def nspawn(pymachine, tree, machine):
    def run(*words, **keywords):
        return pymachine("nspawn", "-D", tree, "-M", machine, *words, **keywords)

    return run


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_the_payloads(nspawn, status):
    assert nspawn("-q", "/bin/sh", "-c", f"exit {status}").returncode == status


def test_options_end_where_the_command_begins(nspawn):
    done = nspawn("-q", "/bin/echo", "-q", "--help", "--", "x")
    assert done.stdout.split() == ["-q", "--help", "--", "x"]


def test_it_tells_of_beginning_and_end_unless_quiet(nspawn, machine):
    done = nspawn("/bin/true")
    assert f"Spawning container {machine} on " in done.stderr
    assert f"Container {machine} exited successfully." in done.stderr
    assert nspawn("-q", "/bin/true").stderr == ""


def test_without_a_command_there_is_a_shell(nspawn):
    done = nspawn("-q", "--pipe", input="echo $0 $PWD; exit 7\n")
    assert (done.stdout, done.returncode) == ("-bash /root\n", 7)


def test_the_root_is_the_working_directory_and_gives_the_name(pymachine, tree):
    done = pymachine("nspawn", "-q", "/bin/hostname", cwd=tree)
    assert done.returncode == 0, done
    assert done.stdout.strip() == tree.name.replace("_", "").rstrip("-")


def test_a_pipe_has_what_the_payload_says_alone(nspawn):
    done = nspawn("--pipe", "/bin/sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_options_that_need_a_value_take_the_next_word(nspawn):
    done = nspawn(
        "-q", "--no-new-privileges", "yes", "/bin/grep", "NoNewPrivs", "/proc/self/status"
    )
    assert done.stdout.split() == ["NoNewPrivs:", "1"]


def test_an_older_name_of_the_user_is_understood_and_the_user_manager_refused(nspawn):
    for words in (("--user=nobody",), ("--user", "nobody")):
        done = nspawn("-q", *words, "/bin/id", "-un")
        assert done.stdout == "nobody\n"
        assert "--uid=" in done.stderr
    done = nspawn("-q", "--user", "--", "/bin/id")
    assert done.returncode == 1
    assert "service manager (--user) are not supported" in done.stderr


@pytest.mark.parametrize(
    ("option", "listed"),
    [
        ("--kill-signal", "SIGRTMIN+3"),
        ("--capability", "cap_net_admin"),
        ("--rlimit", "NOFILE"),
        ("--resolv-conf", "copy-uplink"),
        ("--console", "autopipe"),
    ],
)
def test_help_as_a_value_lists_the_values(pymachine, option, listed):
    done = pymachine("nspawn", f"{option}=help")
    assert done.returncode == 0
    assert listed in done.stdout.split("\n")


def test_help_is_shown_among_other_options(pymachine):
    done = pymachine("nspawn", "-q", "--boot", "-h", "--nonsense")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pymachine nspawn ")


@pytest.mark.parametrize("verb", ["nspawn", "run"])
def test_a_versioned_directory_is_its_newest_version_and_gives_the_name(tree, pymachine, verb):
    place = tree.parent / f"{tree.name}-v"
    versioned = place / f"test{os.getpid()}.v"
    older = versioned / f"test{os.getpid()}_1.2"
    newer = versioned / f"test{os.getpid()}_1.10"
    newer.mkdir(parents=True)
    older.mkdir()
    (place / f"test{os.getpid()}.nspawn").write_text("[Exec]\nEnvironment=A=beside\n")
    subprocess.run(["mount", "--bind", tree, newer], check=True)
    try:
        script = "hostname; echo $A; test -e /usr/bin/env"
        done = pymachine(verb, "-D", versioned, "--", "/bin/sh", "-c", script)
        assert done.stdout.replace("\r", "").split() == [f"test{os.getpid()}", "beside"], done
        assert done.returncode == 0
    finally:
        subprocess.run(["umount", newer], check=True)
        subprocess.run(["rm", "-r", place], check=True)


def test_a_link_gives_its_own_name_and_settings(tree, pymachine, tmp_path):
    name = f"test{os.getpid()}-link"
    (tmp_path / name).symlink_to(tree)
    (tmp_path / f"{name}.nspawn").write_text("[Exec]\nEnvironment=A=beside\n")
    done = pymachine("nspawn", "-q", "-D", tmp_path / name, "/bin/sh", "-c", "hostname; echo $A")
    assert done.stdout.split() == [name, "beside"]


def test_an_image_that_is_read_only_stays_so_when_it_is_found_by_its_name(tree, machine, pymachine):
    image = f"/var/lib/machines/{machine}"
    os.makedirs(image)
    try:
        subprocess.run(["mount", "--bind", tree, image], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", image], check=True)
        touch = ("nspawn", "-q", "-M", machine, "/bin/touch", "/there")
        assert "Read-only file system" in pymachine(*touch).stdout
        subprocess.run(["umount", image], check=True)
        subprocess.run(["mount", "--bind", tree, image], check=True)
        assert pymachine(*touch).returncode == 0
    finally:
        subprocess.run(["umount", image], check=False)
        os.rmdir(image)


def test_the_directory_to_pivot_to_is_what_is_looked_at(tree, nspawn):
    inner = tree / "inner"
    for name in ("usr/lib", "etc"):
        (inner / name).mkdir(parents=True)
    done = nspawn("-q", "--boot", "--pivot-root=/inner")
    assert "has no os-release file" in done.stderr
    (inner / "usr/lib/os-release").write_text("ID=inner\n")
    assert "has no init" in nspawn("-q", "--boot", "--pivot-root=/inner").stderr
    assert "--pivot-root= names" in nspawn("-q", "--pivot-root=/none", "/bin/true").stderr


def test_a_template_is_not_copied_for_an_ephemeral_machine(tree, pymachine, machine, tmp_path):
    words = (f"--template={tree}", "--ephemeral", "-q", "-M", machine)
    target = tmp_path / "new"
    done = pymachine("nspawn", *words, "-D", target, "/bin/true")
    assert (done.returncode, target.exists()) == (1, False)
    assert pymachine("nspawn", *words, "/bin/echo", "yes").stdout == "yes\n"


def test_the_hosts_own_root_is_refused(pymachine, machine):
    done = pymachine("nspawn", "-q", "-D", "/", "-M", machine, "/bin/true")
    assert done.returncode == 1
    assert "The host's own root cannot be a machine's" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--no-such-option",),
        ("--hostname=-x-", "/bin/true"),
        ("--boot", "--as-pid2"),
        ("/no/such/command",),
        ("--oci-bundle=/x",),
        ("--settings=perhaps", "/bin/true"),
        ("--image-policy=root=perhaps", "/bin/true"),
    ],
)
def test_a_failure_of_ours_is_one_line_and_status_1(nspawn, words):
    done = nspawn("-q", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("pymachine: ")
    assert len(done.stderr.splitlines()) <= 2


def test_an_init_boots_until_it_is_stopped(tree, machine, pymachine):
    command = [*COMMAND, "nspawn", "-q", "--boot", "-D", str(tree), "-M", machine]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 30
    while pymachine("show", machine, "-p", "Ready", "--value").stdout != "yes\n":
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Welcome to" in output


def test_a_command_is_killed_by_a_signal_to_us(tree, machine, pymachine):
    command = [*COMMAND, "nspawn", "-q", "-D", str(tree), "-M", machine, "/bin/sleep", "100"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: pymachine("show", machine, "-p", "State", "--value").stdout == "running\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 1


def test_called_by_its_name_it_is_systemd_nspawn(tmp_path, tree, machine):
    stub = tmp_path / "systemd-nspawn"
    source = COMMAND[-1].rpartition("/packaging/")[0]
    stub.write_text(
        "#!/usr/bin/python3 -SI\nimport sys\n"
        f"sys.path.insert(0, {source!r})\n"
        "from machinectl_py.cli.main import main\nmain()\n"
    )
    stub.chmod(0o755)
    shown = subprocess.run([stub, "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("systemd 257")
    done = subprocess.run(
        [stub, "-q", "-D", tree, "-M", machine, "/bin/sh", "-c", "exit 9"],
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 9


def test_the_payload_is_told_a_service_that_it_knows(nspawn, pymachine, tree, machine):
    script = "echo $container; cat /run/host/container-manager"
    assert nspawn("-q", "/bin/sh", "-c", script).stdout == "systemd-nspawn\n" * 2
    environment = os.environ | {"SYSTEMD_NSPAWN_CONTAINER_SERVICE": "other"}
    assert nspawn("-q", "/bin/sh", "-c", script, env=environment).stdout == "other\n" * 2
    done = pymachine("run", "-D", tree, "-M", machine, "--", "/bin/sh", "-c", script)
    assert done.stdout == "pymachine\n" * 2


@pytest.mark.skipif(systemd_runs(), reason="the machine would be in a unit of systemd")
def test_who_asks_to_be_registered_is_told_that_it_cannot_be(nspawn):
    done = nspawn("-q", "--register=yes", "/bin/true")
    assert done.returncode == 1
    assert "cannot be registered" in done.stderr
    assert nspawn("-q", "--register=auto", "/bin/true").returncode == 0
