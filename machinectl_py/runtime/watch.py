"""The supervisor of a running machine: console, readiness, control socket, the leader's end.

Executed as a fresh, minimal interpreter that imports this file alone, and of the standard
library only modules in C: it lives as long as the machine, in little memory. When the leader
ends, it executes the whole program again (`runtime/finish.py`), which knows how to clean up.
"""

from __future__ import annotations

import _signal
import _socket
import posix
import select
import sys
import time
from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machinectl_py.runtime.exposure import Exposure

_LAST_OUTPUT = 1 << 14
_ARG_START = 48 - 3  # its field of proc_pid_stat(5), counted from the one after the name
_SEALED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGURG, _signal.SIGHUP)


class _Plain:
    """What the scanner of JSON reads its ways from."""

    strict, object_hook, object_pairs_hook = True, None, None
    parse_float, parse_int, parse_constant = float, int, float

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}


def _decode(text: str) -> Any:
    return make_scanner(_Plain())(text, 0)[0]  # type: ignore[arg-type]


def tell_service_manager(text: str) -> None:
    """Pass a message to who supervises us, if anyone does; sd_notify(3)."""
    address = posix.environ.get(b"NOTIFY_SOCKET", b"")
    if not address.startswith((b"/", b"@")):
        return
    try:
        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    except OSError:
        return
    try:
        sender.sendto(text.encode(), b"\0" + address[1:] if address.startswith(b"@") else address)
    except OSError:  # nobody has to listen
        pass
    finally:
        sender.close()


class Watchdog:
    """Signs of life for the service manager, if it wants any; sd_watchdog_enabled(3)."""

    def __init__(self) -> None:
        """Find out how often."""
        microseconds = posix.environ.get(b"WATCHDOG_USEC", b"")
        whose = posix.environ.get(b"WATCHDOG_PID", b"")
        ours = whose in (b"", str(posix.getpid()).encode())
        wanted = ours and microseconds.isdigit() and int(microseconds) > 0
        self._period = int(microseconds) / 2e6 if wanted else 0.0  # seconds
        self._due = time.monotonic()

    def patience(self) -> int | None:
        """Return in how many milliseconds at most it is time; None if it never is."""
        left = self._due - time.monotonic()
        return max(int(left * 1000) + 1, 0) if self._period else None

    def look(self) -> None:
        """Tell it, if it is time."""
        if self._period and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._period
            tell_service_manager("WATCHDOG=1")


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message, close-on-exec; unix(7)."""
    found = []
    for _, kind, content in ancillary:
        if kind == _socket.SCM_RIGHTS:
            for start in range(0, len(content) - 3, 4):
                fd = int.from_bytes(content[start : start + 4], sys.byteorder)
                posix.set_inheritable(fd, False)
                found.append(fd)
    return found


class Watch:
    """The loop and what it looks at."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take over the descriptors that the builder opened."""
        self.settings = settings
        self.leader, self.pidfd = settings["leader"], settings["leader-pidfd"]
        self.master, self.log = settings["console"], settings["log"]
        self.directory = settings["directory"]
        self.notify = _socket.socket(fileno=settings["notify"])
        self.control: _socket.socket | None = None
        if settings["control"] >= 0:
            self.control = _socket.socket(fileno=settings["control"])
        self.launcher: _socket.socket | None = None
        if settings["launcher"] >= 0:
            self.launcher = _socket.socket(fileno=settings["launcher"])
        self.clients: list[_socket.socket] = []
        self.attached: set[_socket.socket] = set()
        self.output = b""
        self.status, self.ready, self.terms = "", 0, 0
        self.watchdog = Watchdog()
        self._pipe = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self.wake = self._pipe[0]
        # One that comes meanwhile is for the pipe alone, not for a handler from before us as well.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _SEALED)
        _signal.set_wakeup_fd(self._pipe[1])
        for number in _SEALED:
            _signal.signal(number, lambda *_: None)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        self.exposure: Exposure | None = None
        if settings["addresses"] >= 0:
            self._expose(settings["addresses"])

    def run(self) -> int:
        """Watch until the leader has ended; return its wait status."""
        while True:
            poll = select.poll()
            for fd in [self.pidfd, self.wake, *self.descriptors()]:
                poll.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(self.patience())}
            if self.wake in ready:
                for number in posix.read(self.wake, 64):
                    self.signalled(number)
            self.handle(ready)
            if self.pidfd in ready:
                self._drain()
                return posix.waitpid(self.leader, 0)[1]

    def descriptors(self) -> list[int]:
        """Return what to wait for besides the leader's end and signals."""
        fds = [client.fileno() for client in self.clients] + [self.notify.fileno()]
        fds += [one.fileno() for one in (self.control, self.launcher) if one is not None]
        fds += self.exposure.descriptors() if self.exposure else []
        return [*fds, self.master] if self.master >= 0 else fds

    def patience(self) -> int | None:
        """Return how many milliseconds to wait at most until `handle` is called; None: for ever."""
        return self.watchdog.patience()

    def handle(self, ready: set[int]) -> None:
        """Handle those of the descriptors that are ready, and what it is time for."""
        self.watchdog.look()
        if self.notify.fileno() in ready:
            self._hear()
        if self.master in ready:
            self._copy()
        if self.control is not None and self.control.fileno() in ready:
            self._accept()
        for client in [client for client in self.clients if client.fileno() in ready]:
            self._request(client)
        if self.launcher is not None and self.launcher.fileno() in ready:
            self._from_launcher()
        if self.exposure:
            self.exposure.handle(ready)

    def kill(self, number: int) -> None:
        """Send the leader a signal; nothing if it has ended."""
        try:
            _signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def signalled(self, number: int) -> bool:
        """Stop in the init's orderly way; a second SIGTERM ends it at once."""
        if number in (_signal.SIGTERM, _signal.SIGINT):
            self.terms += 1
        self.kill(_signal.SIGKILL if self.terms > 1 else self.settings["kill-signal"])
        return True

    def _hear(self) -> None:
        """Believe PID 1 of the machine alone; sd_notify(3)."""
        space = _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(4 * 64)
        data, ancillary, _, _ = self.notify.recvmsg(1 << 16, space, _socket.MSG_DONTWAIT)
        sender = 0
        for fd in _descriptors(ancillary):
            posix.close(fd)
        for _, kind, content in ancillary:
            if kind == _socket.SCM_CREDENTIALS:
                sender = int.from_bytes(content[:4], sys.byteorder)
        if sender != self.leader:
            return
        before = (self.status, self.ready)
        for line in data.decode(errors="replace").split("\n"):
            if line == "READY=1":
                self.ready = self.ready or time.monotonic_ns() // 1000
                self._ready_to_caller()
            elif line.startswith("STATUS="):
                self.status = line[7:]
                self._to_caller(f"STATUS=Container running: {line[7:]}")
        if (self.status, self.ready) != before:
            self._tell()

    def _tell(self) -> None:
        text = encode_basestring_ascii(self.status)
        line = f'{{"status":{text},"ready":{self.ready}}}'.encode()
        fd = posix.open(
            f"{self.directory}/notify.new", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o644
        )
        posix.write(fd, line)
        posix.close(fd)
        posix.rename(f"{self.directory}/notify.new", f"{self.directory}/notify")
        self._to_launcher(line)

    def _to_caller(self, text: str) -> None:
        if self.settings["caller"]:
            tell_service_manager(text)

    def _ready_to_caller(self) -> None:
        if self.launcher is None:  # else it tells READY=1 with MAINPID=, in one message
            self._to_caller("READY=1\n")

    def _to_launcher(self, line: bytes) -> None:
        if self.launcher is None:
            return
        try:
            self.launcher.send(line, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            self.launcher = None

    def _from_launcher(self) -> None:
        assert self.launcher is not None
        try:
            data = self.launcher.recv(4096, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.launcher.close()
            self.launcher = None
        elif b'"abort"' in data:
            self.kill(_signal.SIGKILL)

    def _copy(self) -> bool:
        """Pass on what the machine writes; whoever does not read it is dropped."""
        try:
            data = posix.read(self.master, 1 << 14)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.master = -1
            return False
        self.output = (self.output + data)[-_LAST_OUTPUT:]
        if self.log >= 0:
            try:
                posix.write(self.log, data)
            except OSError:
                self.log = -1
        for client in list(self.clients):
            if client in self.attached:
                try:
                    client.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
                except OSError:
                    self._drop(client)
        return True

    def close(self) -> None:
        """Close what is ours: sockets and the pipe of signals."""
        _signal.set_wakeup_fd(-1)
        if self.exposure:
            self.exposure.close()
        for end in (self.notify, self.control, *self.clients):
            if end is not None:
                end.close()
        for fd in self._pipe:
            posix.close(fd)

    def _drain(self) -> None:
        while self.master >= 0 and self._copy():
            pass

    def _accept(self) -> None:
        assert self.control is not None
        try:
            fd, _ = self.control._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - C's accept
        except OSError:
            return
        self.clients.append(_socket.socket(fileno=fd))

    def _drop(self, client: _socket.socket) -> None:
        self.clients.remove(client)
        self.attached.discard(client)
        client.close()

    def _expose(self, fd: int) -> None:
        """Have forwarded ports follow the addresses that a socket tells of."""
        from machinectl_py.runtime.exposure import Exposure

        settings = self.settings
        self.exposure = Exposure(
            fd, name=settings["name"], leader=self.leader, source=settings["path"]
        )

    def _request(self, client: _socket.socket) -> None:
        fds: list[int] = []
        try:
            space = _socket.CMSG_SPACE(4)
            request, ancillary, _, _ = client.recvmsg(4096, space, _socket.MSG_DONTWAIT)
            fds = _descriptors(ancillary)
            if request == b"stop":
                self.signalled(_signal.SIGURG)
            elif request == b"console" and self.master >= 0:
                rights = self.master.to_bytes(4, sys.byteorder)
                client.sendmsg(
                    [self.output or b"\r"],
                    [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)],
                    _socket.MSG_NOSIGNAL,
                )
                self.attached.add(client)
                return
            elif request == b"addresses" and fds and self.exposure is None:
                self._expose(fds.pop())
        except BlockingIOError:
            return
        except OSError:
            pass
        finally:
            for fd in fds:
                posix.close(fd)
        self._drop(client)


def _call_ourselves(title: str) -> None:
    """Be `title` to ps(1) and the like, in the place of an interpreter and its code.

    Our words are overwritten where the kernel reads them; ctypes, which could move them, would
    cost each machine a megabyte.
    """
    try:
        _write("/proc/self/comm", b"pymachine")
        fd = posix.open("/proc/self/stat", posix.O_RDONLY)
        fields = posix.read(fd, 4096).rpartition(b")")[2].split()
        posix.close(fd)
        start, end = map(int, fields[_ARG_START : _ARG_START + 2])
        words = title.encode()[: end - start - 1].ljust(end - start, b"\0")
        _write("/proc/self/mem", words, at=start)
    except (OSError, ValueError):  # no /proc, or a kernel that lets nobody write there
        pass


def _write(path: str, data: bytes, at: int = 0) -> None:
    fd = posix.open(path, posix.O_WRONLY)
    try:
        if at:
            posix.lseek(fd, at, 0)
        posix.write(fd, data)
    finally:
        posix.close(fd)


def main() -> None:
    """Watch the machine of argv[1], then become `runtime/finish.py`."""
    settings = _decode(sys.argv[1])
    _call_ourselves(f"pymachine: supervisor of {settings['name']}")
    watch = Watch(settings)
    status = watch.run()
    if settings["caller"]:
        tell_service_manager("STOPPING=1\nSTATUS=Terminating...")
    tail = watch.output[-2000:].decode(errors="replace")
    launcher = watch.launcher.fileno() if watch.launcher is not None else -1
    held = settings["held"]
    named = ",".join(f"{encode_basestring_ascii(slot)}:{fd}" for slot, fd in held.items())
    if watch.exposure:
        watch.exposure.close()
    answer = (
        f'{{"name":{encode_basestring_ascii(settings["name"])},"status":{status},'
        f'"lock":{settings["lock"]},"root-lock":{settings["root-lock"]},"log":{settings["log"]},'
        f'"held":{{{named}}},"launcher":{launcher},"ready":{watch.ready},"output":{encode_basestring_ascii(tail)}}}'
    )
    for fd in (settings["lock"], settings["root-lock"], launcher, *held.values()):
        if fd >= 0:
            posix.set_inheritable(fd, True)
    for fd in {watch.pidfd, settings["console"], settings["slave"], settings["kmsg"]}:
        if fd >= 0:
            posix.close(fd)
    code = f"import sys;sys.path.insert(0,{settings['path']!r});"
    code += "from machinectl_py.runtime.finish import main;main()"
    posix.execv(sys.executable, [sys.executable, "-SI", "-c", code, answer])
