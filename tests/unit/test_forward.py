"""What the terminal forwarder promises, between pseudo-terminals of the test's own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import termios
import time

import pytest

from machinectl_py.kernel import terminal
from machinectl_py.kernel.process import pidfd_open
from machinectl_py.runtime.forward import EscapeKeys, forward


def _pty():
    master, slave = os.openpty()
    return master, slave


def _child(slave, *argv):
    """Start a command with the slave as its controlling terminal."""
    return subprocess.Popen(
        argv,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: terminal.set_controlling_terminal(0),
    )


def _forward_in_child(master, outer_slave, **keywords):
    """Forward between an outer terminal and `master` in a process; its status is the outcome."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        outcome = forward(master, input_fd=outer_slave, output_fd=outer_slave, **keywords)
        status = {"ended": 0, "detached": 1, "signal": 100 + outcome.signal}[outcome.reason]
    finally:
        os._exit(status)


def _read_until(fd, text, seconds=5):
    data, end = b"", time.monotonic() + seconds
    while text not in data:
        assert select.select([fd], [], [], end - time.monotonic())[0], f"only {data!r}"
        data += os.read(fd, 65536)
    return data


def _status(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def outer():
    """The caller's terminal, of 33 rows and 111 columns."""
    master, slave = _pty()
    terminal.set_window_size(master, 33, 111)
    yield master, slave
    os.close(master)
    os.close(slave)


def test_escape_is_three_keys_within_a_second():
    keys = EscapeKeys()
    assert not keys.seen_in(b"\x1d\x1d", 0.0)
    assert keys.seen_in(b"\x1d", 0.9)
    slow = EscapeKeys()
    assert not slow.seen_in(b"\x1d", 0.0)
    assert not slow.seen_in(b"\x1d", 0.8)
    assert not slow.seen_in(b"\x1d", 1.6)
    assert slow.seen_in(b"\x1d", 1.7)
    other = EscapeKeys()
    assert not other.seen_in(b"\x1d\x1dx\x1d\x1d", 0.0)


def test_a_hot_key_is_a_letter_after_two_escapes():
    keys = EscapeKeys(b"rp")
    assert not keys.seen_in(b"\x1d\x1dr", 0.0)
    assert keys.letter == "r"
    for other in (b"r", b"\x1dp", b"\x1d\x1dx", b"\x1d\x1dxp"):
        assert not keys.seen_in(other, 5.0)
        assert keys.letter == ""
    assert not keys.seen_in(b"\x1d\x1d", 10.0)
    assert not keys.seen_in(b"p", 11.5)  # too late
    assert keys.letter == ""


def test_all_output_arrives_though_the_writer_has_ended():
    master, slave = _pty()
    read, write = os.pipe()
    child = _child(
        slave, "/bin/sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done"
    )
    os.close(slave)
    reader = subprocess.Popen(["/usr/bin/tail", "-1"], stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    null = os.open("/dev/null", os.O_RDONLY)
    outcome = forward(master, pidfd=pidfd_open(child.pid), input_fd=null, output_fd=write)
    os.close(write)
    assert outcome.reason == "ended"
    assert reader.communicate()[0].strip() == b"4999"
    assert child.wait() == 0
    for fd in (master, null):
        os.close(fd)


def test_output_ends_with_the_process_though_another_holds_the_terminal():
    master, slave = _pty()
    read, write = os.pipe()
    child = _child(slave, "/bin/sh", "-c", "echo seen; trap '' HUP; sleep 3 & exit 7")
    null = os.open("/dev/null", os.O_RDONLY)
    begun = time.monotonic()
    outcome = forward(master, pidfd=pidfd_open(child.pid), input_fd=null, output_fd=write)
    assert outcome.reason == "ended"
    assert time.monotonic() - begun < 2
    assert os.read(read, 100) == b"seen\r\n"
    assert child.wait() == 7
    for fd in (master, slave, read, write, null):
        os.close(fd)


def test_without_a_process_the_last_close_of_the_slave_ends_it():
    master, slave = _pty()
    read, write = os.pipe()
    os.write(slave, b"last words")
    os.close(slave)
    null = os.open("/dev/null", os.O_RDONLY)
    assert forward(master, input_fd=null, output_fd=write).reason == "ended"
    assert os.read(read, 100) == b"last words"
    for fd in (master, read, write, null):
        os.close(fd)


def test_a_slave_that_is_closed_and_opened_again_goes_on(tmp_path):
    master, slave = _pty()
    path = os.ttyname(slave)
    script = (
        f"exec </dev/null >{path} 2>&1; echo one; exec >/dev/null 2>&1; sleep 0.3; echo two >{path}"
    )
    child = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)
    os.close(slave)
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    assert (
        forward(master, pidfd=pidfd_open(child.pid), input_fd=null, output_fd=write).reason
        == "ended"
    )
    assert os.read(read, 100) == b"one\r\ntwo\r\n"
    assert child.wait() == 0
    for fd in (master, read, write, null):
        os.close(fd)


@pytest.mark.parametrize("text", [b"abc\n", b"abc"])
def test_the_end_of_piped_input_is_the_end_of_file_inside(text):
    master, slave = _pty()
    attributes = terminal.attributes(slave)
    attributes[3] &= ~termios.ECHO
    terminal.set_attributes(slave, attributes)
    child = _child(slave, "/bin/cat")
    os.close(slave)
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.write(in_write, text)
    os.close(in_write)
    outcome = forward(master, pidfd=pidfd_open(child.pid), input_fd=in_read, output_fd=out_write)
    assert outcome.reason == "ended"
    assert os.read(out_read, 100).rstrip() == b"abc"
    assert child.wait() == 0
    for fd in (master, in_read, out_read, out_write):
        os.close(fd)


def test_a_program_that_takes_the_terminal_late_reads_the_end_of_file_too():
    """As a shell does that starts slowly: by then the key is a byte like others."""
    master, slave = _pty()
    script = "sleep 0.1; stty -icanon -echo; printf 'prompt>'; od -An -tx1 -N6"
    child = _child(slave, "/bin/sh", "-c", script)
    os.close(slave)
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.write(in_write, b"abc\n")
    os.close(in_write)
    outcome = forward(
        master,
        pidfd=pidfd_open(child.pid),
        input_fd=in_read,
        output_fd=out_write,
        at_end="insist",
    )
    assert outcome.reason == "ended"
    assert b" 61 62 63 0a 00 04" in os.read(out_read, 100)
    assert child.wait() == 0
    for fd in (master, in_read, out_read, out_write):
        os.close(fd)


def test_the_end_of_input_can_be_that_of_the_forwarding():
    master, slave = _pty()
    null = os.open("/dev/null", os.O_RDONLY)
    out_read, out_write = os.pipe()
    os.write(slave, b"login: ")
    outcome = forward(master, input_fd=null, output_fd=out_write, at_end="leave")
    assert outcome.reason == "detached"
    assert os.read(out_read, 100) == b"login: "
    for fd in (master, slave, null, out_read, out_write):
        os.close(fd)


def test_keys_go_in_and_the_window_has_the_callers_size(outer):
    outer_master, outer_slave = outer
    before = terminal.attributes(outer_slave)
    master, slave = _pty()
    pid = _forward_in_child(master, outer_slave, escape=True)
    os.write(slave, b"prompt>")
    _read_until(outer_master, b"prompt>")
    assert terminal.window_size(slave) == (33, 111)
    assert not terminal.attributes(outer_slave)[3] & termios.ECHO
    os.write(outer_master, b"yes\r")
    assert os.read(slave, 100) == b"yes\n"
    terminal.set_window_size(outer_master, 20, 40)
    os.kill(pid, signal.SIGWINCH)
    end = time.monotonic() + 5
    while terminal.window_size(slave) != (20, 40):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.write(outer_master, b"\x1d\x1d\x1d")
    assert _status(pid) == 1
    assert terminal.attributes(outer_slave) == before
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(outer, number):
    outer_master, outer_slave = outer
    before = terminal.attributes(outer_slave)
    master, slave = _pty()
    pid = _forward_in_child(master, outer_slave)
    os.write(slave, b"x")
    _read_until(outer_master, b"x")
    os.kill(pid, number)
    assert _status(pid) == 100 + number
    assert terminal.attributes(outer_slave) == before
    os.close(master)
    os.close(slave)


def test_an_output_nobody_reads_does_not_stop_input_or_escape(outer):
    outer_master, outer_slave = outer
    master, slave = _pty()
    writer = _child(slave, "/usr/bin/yes")
    pid = _forward_in_child(master, outer_slave, escape=True)
    time.sleep(0.5)  # until every buffer is full
    os.write(outer_master, b"\x1d\x1d\x1d")
    assert _status(pid) == 1
    writer.kill()
    writer.wait()
    os.close(master)
    os.close(slave)


def test_a_program_that_reads_nothing_does_not_stop_output(outer):
    outer_master, outer_slave = outer
    master, slave = _pty()
    terminal.set_attributes(slave, terminal.raw(terminal.attributes(slave)))
    pid = _forward_in_child(master, outer_slave)
    os.set_blocking(outer_master, False)
    for _ in range(100):
        try:
            os.write(outer_master, b"x" * 4096)
        except BlockingIOError:
            time.sleep(0.01)
    os.write(slave, b"still here")
    _read_until(outer_master, b"still here")
    os.kill(pid, signal.SIGTERM)
    assert _status(pid) == 100 + signal.SIGTERM
    os.close(master)
    os.close(slave)


def test_interrupt_from_outside_a_terminal_is_the_key():
    master, slave = _pty()
    child = _child(
        slave, "/bin/sh", "-c", "trap 'echo caught; exit 3' INT; echo set; sleep 10 & wait"
    )
    os.close(slave)
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        forward(master, pidfd=pidfd_open(child.pid), input_fd=in_read, output_fd=out_write)
        os._exit(0)
    _read_until(out_read, b"set")
    os.kill(pid, signal.SIGINT)
    _read_until(out_read, b"caught")
    assert _status(pid) == 0
    assert child.wait() == 3
    for fd in (master, in_read, in_write, out_read, out_write):
        os.close(fd)


def test_output_without_a_reader_is_told():
    master, slave = _pty()
    read, write = os.pipe()
    os.close(read)
    os.write(slave, b"x")
    null = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(BrokenPipeError):
        forward(master, input_fd=null, output_fd=write)
    for fd in (master, slave, write, null):
        os.close(fd)


def test_handlers_of_signals_are_what_they_were():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
    before = [signal.getsignal(number) for number in numbers]
    master, slave = _pty()
    os.close(slave)
    null = os.open("/dev/null", os.O_RDWR)
    forward(master, input_fd=null, output_fd=null)
    assert [signal.getsignal(number) for number in numbers] == before
    os.close(master)
    os.close(null)
