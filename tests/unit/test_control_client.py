"""The client of a supervisor's control socket, with a supervisor played by the test."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import pytest

from machinectl_py.errors import ConflictError, UnsupportedError
from machinectl_py.runtime import control_client


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(control_client, "machine_dir", lambda _: str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "control"))
        listening.listen(1)
        yield listening


def _answer(server, seen, *, payload=b"", descriptors=()):
    def serve():
        client, _ = server.accept()
        seen.append(client.recv(100))
        if payload or descriptors:
            socket.send_fds(client, [payload], descriptors)
            with suppress(BrokenPipeError):  # a client that has given up
                client.send(b"later")
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_console_is_a_master_the_last_output_and_what_comes(server):
    read, write = os.pipe()
    seen = []
    thread = _answer(server, seen, payload=b"before", descriptors=(write,))
    console = control_client.open_console("name")
    thread.join()
    assert seen == [b"console"]
    assert console.last_output == b"before"
    assert os.read(console.output, 100) == b"later"
    assert os.read(console.output, 100) == b""
    os.write(console.master, b"key")
    assert os.read(read, 100) == b"key"
    assert not os.get_inheritable(console.master)
    assert not os.get_inheritable(console.output)
    for fd in (read, write, console.master, console.output):
        os.close(fd)


@pytest.mark.parametrize("payload", [b"", b"no descriptor comes with this"])
def test_a_supervisor_without_a_console_is_told(server, payload):
    thread = _answer(server, [], payload=payload)
    with pytest.raises(UnsupportedError, match="has no console"):
        control_client.open_console("name")
    thread.join()


def test_stop_is_asked_for(server):
    seen = []
    thread = _answer(server, seen)
    control_client.request_stop("name")
    thread.join()
    assert seen == [b"stop"]


def test_a_supervisor_that_is_gone_is_told(server):
    server.close()
    with pytest.raises(ConflictError, match="does not answer"):
        control_client.open_console("name")


def test_a_supervisor_that_says_nothing_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(control_client, "_PATIENCE", 0.05)
    with pytest.raises(ConflictError, match="does not answer"):
        control_client.open_console("name")
