"""Machines in the foreground: their console, their end, reboots, readiness, the stub init."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from machinectl_py.kernel import terminal
from machinectl_py.runtime.state import find_running, read_notify
from tests.hosts.apart import systemd_runs
from tests.integration import specs
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PATIENCE = 40.0
SIGRTMIN = 34


class Terminal:
    """A command on a terminal of 33 rows and 111 columns, and a person in front of it."""

    def __init__(self, command, *, output=None, **environment):
        self.master, slave = os.openpty()
        terminal.set_window_size(self.master, 33, 111)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave if output is None else output,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: terminal.set_controlling_terminal(0),
            env=os.environ | {"TERM": "vt220"} | environment,
        )
        self.slave = slave
        self.seen = ""

    def expect(self, text):
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.master, text.encode())

    def status(self):
        """Return the exit status; what is still written is read meanwhile."""
        try:
            end = time.monotonic() + PATIENCE
            while self.process.poll() is None:
                assert time.monotonic() < end, self.seen
                if select.select([self.master], [], [], 0.05)[0]:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
            while select.select([self.master], [], [], 0)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            return self.process.returncode
        finally:
            os.close(self.slave)
            os.close(self.master)


def running(machine):
    """Wait until a machine's payload runs and its supervisor is done with building."""
    return wait_for(lambda: (now := find_running(machine)) and now.phase == "running" and now)


def booted(machine):
    return wait_for(lambda: find_running(machine) and read_notify(machine).ready) and find_running(
        machine
    )


def boot_spec(tree, machine, **changes):
    return specs.make_spec(tree, machine, payload={"kind": "boot"}, **changes)


def test_a_shell_in_the_foreground_has_our_terminal(tree, machine):
    spec = specs.make_spec(tree, machine, "/bin/sh", console="interactive")
    person = Terminal(specs.command(spec, "nspawn"))
    person.expect("# ")
    person.type("stty size; tty\n")
    person.expect("33 111")
    person.expect("/dev/")
    person.type("exit 5\n")
    assert person.status() == 5


def test_without_a_command_there_is_a_login_shell(tree, machine):
    spec = specs.make_spec(tree, machine, console="interactive")
    person = Terminal(specs.command(spec, "nspawn"))
    person.expect("# ")
    person.type("echo $0 $PWD; exit\n")
    person.expect("-bash /root")
    assert person.status() == 0


def test_three_escapes_kill_it(tree, machine):
    spec = specs.make_spec(tree, machine, "/bin/cat", console="interactive")
    person = Terminal(specs.command(spec, "nspawn"))
    person.type("hello\n")
    person.expect("hello")
    person.type("\x1d\x1d\x1d")
    assert person.status() == 1
    assert find_running(machine) is None


def test_an_init_boots_on_our_terminal_and_powers_off_by_its_hot_key(tree, machine):
    person = Terminal(specs.command(boot_spec(tree, machine, console="interactive"), "nspawn"))
    person.expect("login:")
    booted(machine)
    person.type("\x1d\x1dp")
    assert person.status() == 0
    assert "Reached target" in person.seen


def test_sigterm_shuts_an_init_down_and_a_second_ends_it(tree, machine):
    orderly = subprocess.Popen(
        specs.command(boot_spec(tree, machine, console="passive"), "nspawn"),
        stdin=subprocess.DEVNULL,
    )
    booted(machine)
    orderly.send_signal(signal.SIGTERM)
    assert orderly.wait(PATIENCE) == 0
    stubborn = specs.make_spec(
        tree,
        machine,
        "/bin/sh",
        "-c",
        "trap : USR1; echo up; while :; do sleep 1; done",
        payload={"kill_signal": int(signal.SIGUSR1)},
    )
    with subprocess.Popen(specs.command(stubborn, "nspawn"), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        running(machine)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 1


def test_without_a_kill_signal_sigterm_ends_it_at_once(tree, machine):
    spec = specs.make_spec(tree, machine, "/bin/sh", "-c", "trap : TERM; echo up; sleep 99")
    with subprocess.Popen(specs.command(spec, "nspawn"), stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        running(machine)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 1


def test_a_reboot_starts_it_again_in_the_same_process(tree, machine, pymachine):
    command = specs.command(boot_spec(tree, machine, console="passive"), "nspawn")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    first = booted(machine)
    assert first.supervisor == process.pid
    pymachine("exec", machine, "--", "systemctl", "reboot")
    wait_for(lambda: (now := find_running(machine)) and now.boots == 2)
    second = booted(machine)
    assert (second.supervisor, second.leader != first.leader) == (process.pid, True)
    before = os.listdir(f"/proc/{process.pid}/fd")
    assert pymachine("reboot", machine).returncode == 0
    assert len(os.listdir(f"/proc/{process.pid}/fd")) <= len(before)
    assert pymachine("poweroff", machine).returncode == 0
    assert process.wait(PATIENCE) == 0


def test_the_passive_console_is_reached_by_the_verb(tree, machine):
    spec = specs.make_spec(tree, machine, "/bin/cat", console="passive")
    process = subprocess.Popen(specs.command(spec, "nspawn"), stdin=subprocess.DEVNULL)
    running(machine)
    from tests.conftest import COMMAND

    person = Terminal([*COMMAND, "console", machine])
    person.expect("Connected")
    person.type("hello\n")
    person.expect("hello\r\nhello\r\n")
    person.type("\x1d\x1d\x1d")
    assert person.status() == 0
    process.terminate()
    assert process.wait(PATIENCE) == 1


def test_the_read_only_console_takes_no_input(tree, machine):
    script = "echo ready; read -t 2 line; echo got=$line; tty"
    spec = specs.make_spec(tree, machine, "/bin/bash", "-c", script, console="read-only")
    person = Terminal(specs.command(spec, "nspawn"))
    person.expect("ready")
    person.type("typed\n")
    person.expect("got=\r")
    person.expect("/dev/")
    assert person.status() == 0


def test_a_background_is_kept_and_taken_away(tree, machine):
    script = r"printf 'one\ntwo\033[0mthree\n'"
    spec = specs.make_spec(
        tree, machine, "/bin/sh", "-c", script, console="interactive", background="44"
    )
    person = Terminal(specs.command(spec, "nspawn"))
    assert person.status() == 0
    assert person.seen.startswith(f"\x1b[44m\x1b[K\x1b[22;2t\x1b]2;Container {machine}\x07")
    assert "one\r\x1b[44m\n\x1b[44m\x1b[Ktwo\x1b[0;44mthree" in person.seen
    assert person.seen.endswith("\x1b[0m\x1b[J\x1b[23;2t")
    plain = Terminal(specs.command(spec, "nspawn"), TERM="dumb")
    assert plain.status() == 0
    assert "\x1b[44m" not in plain.seen


@pytest.fixture
def manager_of_services(tmp_path):
    """A socket as $NOTIFY_SOCKET names it, and what was sent to it so far."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = str(tmp_path / "notify")
    end.bind(path)
    heard = []

    def hear():
        while select.select([end], [], [], 0)[0]:
            heard.append(end.recv(4096).decode())
        return heard

    yield path, hear
    end.close()


@pytest.mark.parametrize("waits", [False, True])
def test_our_caller_hears_when_it_is_ready(tree, machine, manager_of_services, waits):
    path, hear = manager_of_services
    go_on = "until [ -e /go ]; do sleep .02; done"
    notify = (
        "/bin/bash",
        "-c",
        f"{go_on}; systemd-notify --pid=1 --status=warm --ready; sleep .5; env >/env",
    )
    spec = specs.make_spec(tree, machine, *notify, payload={"notify_ready": waits})
    process = subprocess.Popen(
        specs.command(spec, "nspawn"), env=os.environ | {"NOTIFY_SOCKET": path}
    )
    wait_for(lambda: any("X_NSPAWN_LEADER_PID" in text for text in hear()))
    if waits:
        time.sleep(0.1)
        assert "READY=1\n" not in hear()
    else:
        wait_for(lambda: "READY=1\n" in hear())
    Path(tree, "go").touch()
    assert process.wait(PATIENCE) == 0
    said = "".join(hear())
    assert "STATUS=Container running: warm" in said
    assert said.count("READY=1") == (1 if waits else 2)
    assert "STOPPING=1" in hear()[-1]
    assert "NOTIFY_SOCKET=/run/host/notify" in Path(tree, "env").read_text().splitlines()


@pytest.mark.parametrize("options", [(), ("-u", "daemon")], ids=["root", "daemon"])
def test_pipes_can_be_opened_by_their_names_in_a_user_namespace(pymachine, tree, machine, options):
    users = ("--private-users=pick", "--private-users-ownership=chown", *options)
    script = "cat /dev/stdin >/dev/stdout; echo err >/dev/stderr; (: </proc/self/fd/1) 2>/dev/null"
    command = ("run", "-D", tree, "-M", machine, *users, "--", "sh", "-c", script)
    done = pymachine(*command, input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (2, "in\n", "err\n")


def by_nspawn(tree, *arguments):
    """Return the exit status of systemd-nspawn on this tree."""
    if not systemd_runs():
        pytest.skip("needs systemd-nspawn under systemd")
    command = ["systemd-nspawn", "--quiet", "--pipe", "--directory", str(tree), *arguments]
    return subprocess.run(command, check=False, timeout=60, stdin=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("script", ["exit 0", "exit 7", "exit 133", "exit 255"])
@pytest.mark.parametrize("kind", ["command", "as-pid2"])
def test_exit_statuses_are_systemd_nspawns(tree, machine, script, kind):
    option = ["--as-pid2"] if kind == "as-pid2" else []
    theirs = by_nspawn(tree, *option, "/bin/sh", "-c", script)
    spec = specs.make_spec(tree, machine, "/bin/sh", "-c", script, payload={"kind": kind})
    assert specs.run(spec, "nspawn").returncode == theirs


@pytest.mark.parametrize("number", [*range(3, 7), *range(13, 17)])
def test_the_stub_init_obeys_as_systemd_nspawns(tree, machine, number):
    """Each of them starts again upon a request to reboot; the second time it ends by itself."""
    script = f"trap 'exit 9' TERM; test -e /again && exit 8; : >/again; kill -{SIGRTMIN + number} 1"
    script += "; sleep 9 & wait"
    theirs = by_nspawn(tree, "--as-pid2", "/bin/sh", "-c", script)
    (tree / "again").unlink()
    spec = specs.make_spec(tree, machine, "/bin/sh", "-c", script, payload={"kind": "as-pid2"})
    assert specs.run(spec, "nspawn").returncode == theirs


def test_a_unit_is_left_to_reboot_it(tree, machine):
    if not systemd_runs():
        pytest.skip("needs systemd")
    script = "trap : TERM; kill -INT 1; sleep 9 & wait"
    spec = specs.make_spec(tree, machine, "/bin/sh", "-c", script, payload={"kind": "as-pid2"})
    service = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--property=Delegate=yes"]
    done = subprocess.run(
        [*service, "--slice=machine.slice", *specs.command(spec, "nspawn", "keep-unit")],
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 133


def test_a_command_under_the_stub_init_that_a_signal_ends(tree, machine):
    spec = specs.make_spec(
        tree, machine, "/bin/sh", "-c", "kill -KILL $$", payload={"kind": "as-pid2"}
    )
    assert specs.run(spec, "nspawn").returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("number", "status"), [(SIGRTMIN + 3, 0), (SIGRTMIN + 4, 0), (SIGRTMIN + 14, 0)]
)
def test_the_stub_init_powers_off(tree, machine, number, status):
    script = "trap '' HUP; trap 'echo told; exit 3' TERM; echo up; while :; do sleep .1; done"
    spec = specs.make_spec(
        tree,
        machine,
        "/bin/sh",
        "-c",
        script,
        payload={"kind": "as-pid2", "kill_signal": number},
    )
    with subprocess.Popen(
        specs.command(spec, "nspawn"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        running(machine)
        process.terminate()
        assert process.stdout.read() == "told\n"
        assert process.wait(PATIENCE) == status


def test_the_stub_init_reboots_and_ignores_what_it_cannot_do(tree, machine):
    script = "echo up; exec sleep 99"
    spec = specs.make_spec(
        tree, machine, "/bin/sh", "-c", script, payload={"kind": "as-pid2", "kill_signal": 9}
    )
    with subprocess.Popen(
        specs.command(spec, "nspawn"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        leader = running(machine).leader
        os.kill(leader, signal.SIGTERM)
        os.kill(leader, signal.SIGHUP)
        time.sleep(0.2)
        assert find_running(machine).leader == leader
        os.kill(leader, signal.SIGINT)
        assert process.stdout.readline() == "up\n"
        assert running(machine).boots == 2
        process.terminate()
        assert process.wait(PATIENCE) == 1


def test_the_stub_init_reaps_and_shows_nothing_of_the_host(tree, machine):
    script = (
        "(sleep .1 & ); sleep .4; ps -eo pid,stat,comm; tr '\\0' '\\n' </proc/1/environ;"
        " tr '\\0' ' ' </proc/1/cmdline; echo; ls -l /proc/1/cwd; exit 7"
    )
    spec = specs.make_spec(tree, machine, "/bin/sh", "-c", script, payload={"kind": "as-pid2"})
    shown = specs.run(spec, "nspawn", env=os.environ | {"SECRET_OF_THE_HOST": "1"})
    assert shown.returncode == 7, shown
    assert "SECRET_OF_THE_HOST" not in shown.stdout
    assert "container=pymachine" in shown.stdout.splitlines()
    assert "(sd-stubinit)" in shown.stdout
    assert "python" not in shown.stdout
    assert " Z" not in shown.stdout
