"""Entering a machine: exec, shell, login and console, as the user and the kernel see them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import termios
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from machinectl_py.kernel import terminal
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.runtime.state import read_state, write_state
from tests.conftest import COMMAND
from tests.integration import leaks
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def _state_changed(name, **changes):
    before = read_state(name)
    write_state(before.replace(**changes))
    try:
        yield
    finally:
        write_state(before)


@pytest.fixture(autouse=True)
def leaves_nothing():
    """Replace the check for each test: sessions come and go in the machine that all tests share."""


@pytest.fixture(scope="module")
def booted(pymachine, pristine_tree):
    """A machine that runs systemd; its name and the PID of its leader."""
    from tests.hosts.overlay import private_copy

    before = leaks.snapshot(os.getppid())
    name = f"enter-{os.getpid()}"
    with private_copy(pristine_tree) as root:
        pymachine("boot", "-D", root, "-M", name, check=True)
        yield name, read_state(name).leader
        pymachine("terminate", name, check=True)
    assert leaks.leaked(before, os.getppid()) == []


@pytest.fixture
def name(booted):
    return booted[0]


class Terminal:
    """The command on a terminal of 33 rows and 111 columns, and a person in front of it."""

    def __init__(self, *arguments):
        self.master, slave = os.openpty()
        terminal.set_window_size(self.master, 33, 111)
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: terminal.set_controlling_terminal(0),
            env=os.environ | {"TERM": "vt220"},
        )
        self.slave = slave
        self.seen = ""

    def expect(self, text):
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode()
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.master, text.encode())

    def status(self):
        try:
            return self.process.wait(PATIENCE)
        finally:
            os.close(self.slave)
            os.close(self.master)


def test_a_command_is_in_all_namespaces_of_the_leader(pymachine, booted):
    name, leader = booted
    kinds = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time")
    links = [f"/proc/self/ns/{kind}" for kind in kinds]
    shown = pymachine("exec", name, "readlink", *links, check=True)
    assert shown.stdout.split() == [os.readlink(f"/proc/{leader}/ns/{kind}") for kind in kinds]


def test_a_command_is_in_the_leaders_cgroup(pymachine, name):
    shown = pymachine("exec", name, "sh", "-c", "grep ^0:: /proc/self/cgroup /proc/1/cgroup")
    own, leaders = (line.partition(":")[2] for line in shown.stdout.splitlines())
    assert own == leaders == "0::/init.scope"


def test_a_command_is_limited_as_the_leader_is(pymachine, name):
    script = "grep -hE '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status /proc/1/status"
    lines = pymachine("exec", name, "sh", "-c", script, check=True).stdout.splitlines()
    assert len(lines) == 6
    assert lines[:3] == lines[3:]
    assert "Seccomp:\t2" in lines


def test_privileges_that_the_state_withholds_are_withheld(pymachine, name):
    with _state_changed(name, capabilities=1 << 0 | 1 << 21, no_new_privileges=True):
        script = "grep -hE '^(CapBnd|CapEff|NoNewPrivs):' /proc/self/status"
        shown = pymachine("exec", name, "sh", "-c", script)
    mask = f"{1 << 0 | 1 << 21:016x}"
    assert shown.stdout == f"CapEff:\t{mask}\nCapBnd:\t{mask}\nNoNewPrivs:\t1\n"


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_is_the_commands(pymachine, name, status):
    assert pymachine("exec", name, "--", "sh", "-c", f"exit {status}").returncode == status


def test_a_signal_that_ends_the_command_gives_128_and_its_number(pymachine, name):
    assert pymachine("exec", name, "sh", "-c", "kill -KILL $$").returncode == 137


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        ("no-such-command", 127, "No such file or directory"),
        ("/no/such/command", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed_is_told_in_a_line(
    pymachine, name, command, status, reason
):
    shown = pymachine("exec", name, command)
    assert shown.returncode == status
    assert shown.stderr == f"pymachine: Failed to execute {command} in machine '{name}': {reason}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--user=nobody-here", "NAME", "true"), "Machine 'NAME' has no user 'nobody-here'"),
        (
            ("--chdir=/nowhere", "NAME", "true"),
            "Failed to change to directory /nowhere in machine 'NAME': No such file or directory",
        ),
        (("not-running", "true"), "No machine 'not-running' is running"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(pymachine, name, arguments, reason):
    shown = pymachine("exec", *(word.replace("NAME", name) for word in arguments))
    assert shown.returncode == 1
    assert shown.stderr.splitlines()[0] == f"pymachine: {reason.replace('NAME', name)}"


def test_a_leader_whose_pid_is_used_again_is_not_entered(pymachine, booted):
    name, leader = booted
    with _state_changed(name, leader_start=start_ticks(leader) - 1):
        shown = pymachine("exec", name, "true")
    assert (shown.returncode, shown.stderr.count("\n")) == (1, 1)
    assert "is being stopped or restarted" in shown.stderr


def test_the_environment_is_clean_but_for_what_is_asked(pymachine, name):
    caller = {"PATH": os.environ["PATH"], "SECRET": "x", "HERE": "there", "HOME": "/caller"}
    words = ("exec", "-E", "SET=to", "-E", "HERE", "-E", "UNSET", name, "env", "-0")
    shown = pymachine(*words, env=caller, check=True)
    assert dict(line.split("=", 1) for line in shown.stdout.split("\0") if line) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "container": "pymachine",
        "SET": "to",
        "HERE": "there",
    }


@pytest.mark.parametrize("user", ["games", "5"])
def test_a_user_of_the_machine_by_name_or_number(pymachine, name, user):
    script = "id -u; id -G; echo $HOME $USER; grep CapEff /proc/self/status; pwd"
    shown = pymachine("exec", "-u", user, "--chdir=/usr", name, "sh", "-c", script, check=True)
    assert shown.stdout.split() == [
        *("5", "60", "/usr/games", "games", "CapEff:", "0000000000000000", "/usr")
    ]


def test_descriptors_and_ignored_signals_of_the_caller_stay_out(pymachine, name):
    read, write = os.pipe()
    shown = pymachine("exec", name, "ls", "/proc/self/fd", pass_fds=(write,), check=True)
    assert shown.stdout.split() == ["0", "1", "2", "3"]  # of which 3 is the directory
    os.close(read)
    os.close(write)
    argv = ["nohup", *COMMAND, "exec", name, "grep", "-hE", "^Sig(Ign|Blk):", "/proc/self/status"]
    shown = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert shown.stdout.split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_pipes_are_the_commands_own_and_binary(pymachine, name):
    data = bytes(range(256)) * 4096
    shown = pymachine("exec", name, "cat", input=data, text=False, check=True)
    assert shown.stdout == data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_us_is_the_commands(name, number):
    word = number.name[3:]
    script = f"trap 'exit 7' {word}; echo set; while :; do sleep 0.02; done"
    process = subprocess.Popen([*COMMAND, "exec", name, "sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"set\n"
    process.send_signal(number)
    assert process.wait(PATIENCE) == 7
    process.stdout.close()


def test_a_command_does_not_outlive_a_killed_caller(name):
    argv = [*COMMAND, "exec", name, "sh", "-c", "echo set; exec sleep 1000"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    process.stdout.readline()
    child = _children(process.pid)[0]
    process.kill()
    process.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{child}"))
    process.stdout.close()


def test_on_a_terminal_the_command_has_one_of_the_machines(name):
    session = Terminal("exec", name, "sh", "-c", "tty; stty size; echo $TERM; read x; exit $x")
    assert session.expect("\r\n").startswith("/dev/pts/")
    assert session.expect("\r\n") == "33 111"
    assert session.expect("\r\n") == "vt220"
    session.type("9\r")
    assert session.status() == 9


def test_ctrl_c_on_a_terminal_interrupts_the_command_not_us(name):
    session = Terminal("exec", name, "sh", "-c", "trap 'exit 3' INT; echo set; sleep 100 & wait")
    session.expect("set\r\n")
    session.type("\x03")
    assert session.status() == 3


def test_leaving_by_the_escape_hangs_up_and_gives_the_terminal_back(name):
    session = Terminal("exec", name, "sh", "-c", "echo set; sleep 1000")
    session.expect("set\r\n")
    assert not termios.tcgetattr(session.slave)[3] & termios.ECHO
    child = _children(session.process.pid)[0]
    session.type("\x1d\x1d\x1d")
    session.process.wait(PATIENCE)
    assert termios.tcgetattr(session.slave)[3] & termios.ECHO
    assert session.status() == 128 + signal.SIGHUP
    wait_for(lambda: not os.path.exists(f"/proc/{child}"))


def test_a_terminal_can_be_asked_for_without_having_one(pymachine, name):
    script = "tty && read line && echo got $line && cat && exit 6"
    shown = pymachine("exec", "--pty", name, "sh", "-c", script, input="one\n")
    assert "/dev/pts/" in shown.stdout
    assert "got one" in shown.stdout
    assert shown.returncode == 6


def test_our_own_terminal_never_enters_the_machine(name):
    script = "for n in 0 1 2; do test -t $n && echo $n; done; read x; echo got $x; cat; exit 4"
    session = Terminal("exec", "--pipe", name, "sh", "-c", script)
    session.type("word\nline\n")
    session.type("\x04")
    assert session.expect("got word\r\n").split() == ["word", "line"]  # echoed, and no number
    session.expect("line\r\n")
    assert session.status() == 4


def test_much_input_and_output_through_our_terminal_flow_both_ways(name):
    session = Terminal("exec", "--pipe", name, "sh", "-c", "seq 30000; echo err >&2")
    session.expect("\r\n30000\r\nerr\r\n")
    assert session.status() == 0


def test_shell_is_a_session_of_the_machines_logind(name):
    session = Terminal("shell", name, "/bin/sh", "-c", "grep ^0:: /proc/self/cgroup; tty; exit 9")
    session.expect("exit session.\r\n")
    assert "/session-" in session.expect("\r\n")
    assert session.expect("\r\n").startswith("/dev/pts/")
    assert session.status() == 9


def test_nothing_that_a_short_session_writes_is_lost(pymachine, name):
    for _ in range(10):
        shown = pymachine("shell", name, "/bin/echo", "said")
        assert (shown.returncode, shown.stdout) == (0, "said\n")


def test_shell_gives_the_command_its_words_as_they_are(name):
    session = Terminal("shell", name, "/bin/echo", "$HOME", "$$", "a${USER}b", "%n", "x  y")
    session.expect("$HOME $$ a${USER}b %n x  y\r\n")
    assert session.status() == 0


def test_shell_without_a_command_is_the_users_login_shell(name):
    session = Terminal("shell", f"root@{name}", "-E", "FOO=bar")
    session.expect("# ")
    session.type("shopt -q login_shell && echo $FOO:$HOME:$PWD; stty size\r")
    session.expect("bar:/root:/root\r\n")
    session.expect("33 111\r\n")
    session.type("exit\r")
    session.expect("terminated.")
    assert session.status() == 0


def test_a_shell_takes_its_commands_from_a_pipe_and_ends_with_it(pymachine, name):
    shown = pymachine("shell", name, input="echo $((6 * 7)); false\n")
    assert "\n42\n" in shown.stdout.replace("\r", "")
    assert shown.returncode == 1


@pytest.fixture
def without_systemd(tree, machine):
    """A machine whose only program is a command."""
    argv = [*COMMAND, "run", "-D", tree, "-M", machine, "--as-pid2", "sleep", "1000"]
    runner = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    is_up = [*COMMAND, "exec", machine, "true"]
    wait_for(lambda: subprocess.run(is_up, capture_output=True, check=False).returncode == 0)
    yield machine
    runner.terminate()
    runner.wait(PATIENCE)


def test_shell_without_systemd_is_a_login_shell_and_says_so(without_systemd):
    session = Terminal("shell", without_systemd)
    session.expect("no PAM")
    session.expect("# ")
    session.type("shopt -q login_shell && echo $HOME:$PWD; tty; stty -a | grep -o .iutf8; exit 5\r")
    session.expect("/root:/root\r\n/dev/pts/")
    session.expect("\r\n iutf8")
    assert session.status() == 5


def test_login_without_systemd_is_refused_in_a_line(pymachine, without_systemd):
    shown = pymachine("login", without_systemd)
    assert shown.returncode == 1
    assert "is not systemd, which 'login' needs" in shown.stderr.splitlines()[0]


def test_login_prompts_and_the_escape_leaves(name):
    session = Terminal("login", name)
    session.expect("login:")
    session.type("root\r")
    session.expect("Password:")
    session.type("\x1d\x1d\x1d")
    session.expect(f"Connection to machine {name} terminated.")
    assert session.status() == 0


@pytest.fixture
def mapped(pymachine, pristine_tree):
    """Run a machine whose users are others on the host; give its name."""
    from tests.hosts.overlay import private_copy

    name = f"enter-mapped-{os.getpid()}"
    options = ("--private-users=pick", "--private-users-ownership=chown")
    with private_copy(pristine_tree) as root:
        pymachine("boot", "-D", root, "-M", name, *options, check=True)
        yield name
        pymachine("terminate", name, check=True)


def test_sessions_in_a_user_namespace_have_their_terminals(pymachine, mapped):
    shown = pymachine("shell", mapped, "/bin/echo", "said")
    assert (shown.returncode, shown.stdout) == (0, "said\n")
    session = Terminal("login", mapped)
    session.expect("login:")
    session.type("root\r")
    session.expect("Password:")
    session.type("\x1d\x1d\x1d")
    assert session.status() == 0


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_pipes_can_be_opened_by_their_names_but_not_the_other_way(mapped, user):
    script = (
        "cat /dev/stdin >/dev/stdout; echo err >/dev/stderr;"
        " (: </proc/self/fd/1) 2>/dev/null || echo unread; (: >/dev/stdin) 2>/dev/null || echo kept"
    )
    command = [*COMMAND, "exec", f"--user={user}", mapped, "--", "sh", "-c", script]
    done = subprocess.run(command, input="in\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\nunread\nkept\n", "err\n")


def test_login_ends_with_an_input_that_is_no_terminal(pymachine, name):
    shown = pymachine("login", name)
    assert (shown.returncode, shown.stderr.count("\n")) == (0, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("exec", "NAME", "true"), "enter machine 'NAME'"),
        (("shell", "NAME", "/bin/true"), "enter machine 'NAME'"),
        (("login", "NAME"), "enter machine 'NAME'"),
        (("console", "NAME"), "see the console of machine 'NAME'"),
        *(((verb, "NAME"), "signal machines") for verb in ("poweroff", "reboot", "terminate")),
        (("kill", "NAME"), "signal machines"),
        (("kill", "--whom=leader", "NAME"), "signal machines"),
    ],
)
def test_who_is_not_root_is_told_so(pymachine, name, words, told):
    words = [word.replace("NAME", name) for word in words]
    shown = pymachine(*words, user=65534, group=65534, extra_groups=())
    line = f"pymachine: Only root may {told.replace('NAME', name)}"
    assert shown.stderr == f"{line}\nhint: Try again with sudo.\n"
    assert shown.returncode == 1


def test_console_takes_keys_shows_what_comes_and_can_be_left_and_come_back_to(name):
    for _ in range(2):
        session = Terminal("console", name)
        session.expect("to detach.\r\n")
        session.expect("login:")  # the last output, then the answer to a key
        session.type("\r")
        session.expect("login:")
        session.type("\x1d\x1d\x1d")
        session.expect("Detached")
        assert session.status() == 0


def test_console_has_the_size_of_our_terminal(pymachine, name):
    session = Terminal("console", name)
    session.expect("login:")
    shown = pymachine("exec", name, "stty", "-F", "/dev/console", "size", check=True)
    assert shown.stdout == "33 111\n"
    session.type("\x1d\x1d\x1d")
    assert session.status() == 0


def test_console_without_a_terminal_types_no_end_of_file_and_ends_with_the_machine(
    pymachine, tree, machine
):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    argv = [*COMMAND, "console", machine]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    output = b""
    while b"login:" not in output:
        assert select.select([process.stdout], [], [], PATIENCE)[0]
        output += os.read(process.stdout.fileno(), 65536)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    pymachine("poweroff", machine, check=True)
    output += process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    assert output.count(b"login:") == 1, "a getty that reads the end of file prompts again"
