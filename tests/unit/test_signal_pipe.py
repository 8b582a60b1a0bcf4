"""Signals as bytes of a pipe."""

from __future__ import annotations

import os
import select
import signal
import subprocess

from machinectl_py.runtime.enter import Process, wait
from machinectl_py.runtime.signal_pipe import SignalPipe


def test_a_signal_that_came_before_the_wait_ends_it():
    with SignalPipe((signal.SIGHUP, signal.SIGTERM)) as signals:
        assert signals.arrived() == b""
        os.kill(os.getpid(), signal.SIGHUP)
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        assert poll.poll(0)
        assert signals.arrived() == bytes([signal.SIGHUP])


def test_what_the_caller_ignores_is_not_taken_and_all_is_as_before_after_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with SignalPipe((signal.SIGHUP, signal.SIGTERM)) as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.arrived() == b""
            assert signal.getsignal(signal.SIGTERM) != term
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == term
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_is_told_a_signal_that_came_before_we_wait_for_it():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as command:
        child = Process(pid=command.pid, pidfd=os.pidfd_open(command.pid))
        with SignalPipe((signal.SIGHUP,)) as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert wait(child, signals, None) == 128 + signal.SIGHUP
