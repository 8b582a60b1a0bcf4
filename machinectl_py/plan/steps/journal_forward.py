"""Forwarding of the machine's journal to the host, as it is written: systemd-journal-remote(8)."""

from __future__ import annotations

import os
import select
import time

from machinectl_py.errors import PymachineError
from machinectl_py.kernel import const, process
from machinectl_py.kernel import mount as kernel_mount
from machinectl_py.kernel.paths import make_in_root
from machinectl_py.kernel.start_time import start_ticks
from machinectl_py.layout import machine_dir
from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn

    from machinectl_py.plan.context import Context

INSIDE = "/run/host/journal/socket"
CREDENTIAL = "journal.forward_to_socket"  # systemd-journald.service(8), "CREDENTIALS"
# The names of journal-remote.conf(5), and the options of the same meaning.
LIMIT_OPTIONS = {
    "MaxUse": "--max-use",
    "KeepFree": "--keep-free",
    "MaxFileSize": "--max-file-size",
    "MaxFiles": "--max-files",
}
_START_TIMEOUT = 30.0  # seconds
_STOP_TIMEOUT = 10.0  # seconds, to write what it has
_FIRST_FD = 3  # sd_listen_fds(3)


class ForwardJournal(Step):
    """Start the receiver, for as long as the machine lives, reboots included."""

    name = "forward-journal"
    place = "supervisor"
    man = "systemd-journal-remote(8)"
    because = "the supervisor's child, in its cgroup: it ends with it"
    lifetime = "host"
    takes = ("lock", "cgroup")
    gives = ("journal-remote",)

    machine: str
    program: str
    output: str  # "….journal": a file, else a directory
    limits: tuple[tuple[str, str], ...]
    for_all: bool  # root of the machine is nobody known here: a user namespace

    def describe(self) -> str:
        """Return the act."""
        return f"start systemd-journal-remote, which writes {self.output}"

    def command(self) -> str:
        """Return the shell's way."""
        return f"systemd-socket-activate --listen={self._socket()} {' '.join(self._words())}"

    def _socket(self) -> str:
        return f"{machine_dir(self.machine)}/journal-remote"

    def _words(self) -> list[str]:
        mode = "none" if self.output.endswith(".journal") else "host"
        limits = [f"{LIMIT_OPTIONS[name]}={value}" for name, value in self.limits]
        return [self.program, f"--output={self.output}", f"--split-mode={mode}", *limits]

    def apply(self, context: Context) -> None:
        """Start it on a socket of ours, and wait until it says that it is ready.

        Raises:
            PymachineError: it ended, or did not get ready.
        """
        import _socket

        directory = self.output
        if self.output.endswith(".journal"):
            directory = os.path.dirname(self.output)
        os.makedirs(directory, 0o755, exist_ok=True)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        listener.bind(self._socket())
        os.chmod(self._socket(), 0o666 if self.for_all else 0o600)
        listener.listen(16)
        notify = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        notify.bind(b"")  # an abstract name of the kernel's choice; unix(7), "Autobind"
        log = os.open(
            f"{self._socket()}.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        supervisor = os.getpid()
        pid = os.fork()
        if not pid:
            self._become_receiver(listener.fileno(), log, notify.getsockname(), supervisor)
        listener.close()
        context.give("journal-remote", f"{pid} {start_ticks(pid)}")
        try:
            hint = "Older ones know no limits: try without." if self.limits else ""
            _wait_ready(pid, notify, log, hint)
        except PymachineError:
            self.undo(context)
            raise
        finally:
            notify.close()
            os.close(log)

    def _become_receiver(self, listener: int, log: int, notify: bytes, parent: int) -> NoReturn:
        try:
            process.set_parent_death_signal(const.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
            null = os.open("/dev/null", os.O_RDWR)
            for fd, number in ((null, 0), (log, 1), (log, 2), (listener, _FIRST_FD)):
                os.dup2(fd, number)
            process.close_range(_FIRST_FD + 1)
            environment = {
                "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin"),
                "LISTEN_FDS": "1",
                "LISTEN_PID": str(os.getpid()),
                "NOTIFY_SOCKET": f"@{notify[1:].decode()}",
                # The limits are those of the machine, not of the host's own receiver.
                "SYSTEMD_JOURNAL_REMOTE_CONFIG_FILE": "/dev/null",
            }
            os.execve(self.program, self._words(), environment)
        except OSError as error:
            os.write(2, f"{self.program}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def undo(self, context: Context) -> None:
        """Ask it to end, which writes what it has, and see it through."""
        told = context.slots.get("journal-remote", "")
        assert isinstance(told, str)
        if told:
            pid, born = (int(word) for word in told.split())
            _end(pid, born)


class CloneJournalSocket(Step):
    """Take a detached copy of the mount of the receiver's socket."""

    name = "clone-journal-socket"
    man = "open_tree(2)"
    because = "before the pivot: afterwards no path of the host leads anywhere"
    takes = ("journal-remote",)
    gives = ("journal-socket",)

    machine: str

    def describe(self) -> str:
        """Return the act."""
        return f"open_tree {machine_dir(self.machine)}/journal-remote"

    def apply(self, context: Context) -> None:
        """Clone it."""
        path = f"{machine_dir(self.machine)}/journal-remote"
        context.give("journal-socket", kernel_mount.open_tree(path, recursive=False))


class AttachJournalSocket(Step):
    """Show the socket where the machine's journald is told to find it."""

    name = "attach-journal-socket"
    man = "move_mount(2)"
    because = "before /run/host turns read-only"
    takes = ("journal-socket",)

    def describe(self) -> str:
        """Return the act."""
        return f"bind the socket on {INSIDE} read-only"

    def apply(self, context: Context) -> None:
        """Make the place and attach."""
        tree = context.number("journal-socket")
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        target = make_in_root(root, INSIDE, directory=False)
        kernel_mount.set_attributes(tree, const.MOUNT_ATTR_RDONLY, recursive=False)
        kernel_mount.move_mount(tree, target)
        for fd in (root, target, tree):
            os.close(fd)


def _wait_ready(pid: int, notify: _socket.socket, log: int, hint: str) -> None:
    pidfd = process.pidfd_open(pid)
    poll = select.poll()
    poll.register(notify.fileno(), select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + _START_TIMEOUT
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if notify.fileno() in ready and b"READY=1" in notify.recv(4096).split(b"\n"):
                return
            if pidfd in ready and notify.fileno() not in ready:
                break
    finally:
        os.close(pidfd)
    lines = os.pread(log, 4096, 0).decode(errors="replace").strip().splitlines()
    why = "".join(letter for letter in lines[-1] if letter.isprintable()) if lines else ""
    raise PymachineError(
        "systemd-journal-remote does not start" + (f": {why}" if why else ""),
        hint,
    )


def _end(pid: int, born: int) -> None:
    """End the very process, our child or one that lost its parent, and wait for it."""
    deadline = time.monotonic() + _STOP_TIMEOUT
    number = const.SIGTERM
    while True:
        try:
            if start_ticks(pid) != born or _is_dead(pid):
                break
            if number:
                os.kill(pid, number)
        except (FileNotFoundError, ProcessLookupError):
            break
        number = const.SIGKILL if time.monotonic() > deadline else 0
        time.sleep(0.01)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # not ours, or reaped already
        pass


def _is_dead(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2].startswith(b"Z")
