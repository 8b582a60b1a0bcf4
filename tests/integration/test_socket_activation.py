"""A machine gets the sockets that its caller was started with; sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOCKET = "[Socket]\nListenStream=@{name}\nAccept=yes\n"
SERVICE = "[Service]\nExecStart=/bin/cat\nStandardInput=socket\nStandardOutput=socket\n"
# The shell's redirection makes it descriptor 3, and the shell's PID is that of the command.
PASSING = 'exec 3<&"$0"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


@pytest.fixture
def listening(machine):
    """A listening socket with an abstract name, the machine's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{machine}")
        listener.listen()
        yield listener


def pass_on(listener, command):
    """Run a command with the socket as descriptor 3."""
    fd = listener.fileno()
    return subprocess.run(
        ["bash", "-c", PASSING, str(fd), *command],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        pass_fds=[fd],
    )


def echo(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(f"\0{name}")
        client.sendall(b"are you there?")
        client.shutdown(socket.SHUT_WR)
        return client.recv(100)


def test_a_booted_machine_answers_on_its_callers_socket(pymachine, tree, machine, listening):
    units = tree / "etc/systemd/system"
    (units / "echo.socket").write_text(SOCKET.format(name=machine))
    (units / "echo@.service").write_text(SERVICE)
    (units / "sockets.target.wants").mkdir(exist_ok=True)
    (units / "sockets.target.wants/echo.socket").symlink_to("../echo.socket")
    booted = pass_on(listening, pymachine.command("boot", "-D", tree, "-M", machine))
    assert booted.returncode == 0, booted
    listening.close()
    assert echo(machine) == b"are you there?"
    pymachine("reboot", machine, check=True)
    assert echo(machine) == b"are you there?"
    pymachine("poweroff", machine, check=True)
    with pytest.raises(ConnectionRefusedError):
        echo(machine)


@pytest.mark.parametrize(("options", "pid"), [([], "1"), (["--as-pid2"], "2")])
def test_a_command_is_told_its_own_pid(pymachine, tree, machine, listening, options, pid):
    words = ["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID $$; readlink /proc/self/fd/3"]
    command = pymachine.command("run", "-P", *options, "-D", tree, "-M", machine, "--", *words)
    told = pass_on(listening, command)
    assert told.stdout.startswith(f"1 {pid} {pid}\nsocket:"), told


def test_what_is_passed_to_another_is_not_passed_on(pymachine, tree, machine, listening):
    command = pymachine.command("run", "-P", "-D", tree, "-M", machine, "--", "sh", "-c")
    other = ["bash", "-c", PASSING, str(listening.fileno()), "sh", "-c", '"$@"; exit $?', "sh"]
    words = [*other, *command, "echo ${LISTEN_FDS-none}; readlink /proc/self/fd/3"]
    told = subprocess.run(
        words, check=False, capture_output=True, text=True, pass_fds=[listening.fileno()]
    )
    assert told.stdout == "none\n", told


def test_no_other_descriptor_of_the_caller_is_kept_open(pymachine, tree, machine):
    read, write = os.pipe()
    command = pymachine.command("boot", "-D", tree, "-M", machine)
    subprocess.run(command, check=True, capture_output=True, pass_fds=[write])
    os.close(write)
    assert os.read(read, 1) == b""  # the supervisor holds no end of it
    os.close(read)
