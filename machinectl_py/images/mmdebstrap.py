"""Building a tree with mmdebstrap(1), such that nothing of it can outlive the build.

It runs in a mount and a PID namespace of its own: what it mounts the host never sees, and when
the namespace's first process goes, the kernel kills every other one and drops the mounts,
whatever became of us.
"""

from __future__ import annotations

import os
import select
import signal

from machinectl_py.errors import PymachineError, UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc
from machinectl_py.kernel.mount import mount
from machinectl_py.kernel.namespaces import clone3
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machinectl_py.images.interruption import Interruption

    # Called with what is being done, and how far it is ("" or "12 of 66").
    Progress = Callable[[str, str], None]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What mmdebstrap says when a part begins, and what we call the part.
_PHASES = {
    "I: running apt-get update": "reading package lists",
    "I: downloading packages": "choosing the essential packages",
    "I: extracting archives": "extracting the essential packages",
    "I: installing essential": "installing the essential packages",
    "I: installing remaining": "choosing the other packages",
    "I: cleaning": "cleaning up",
}
# What apt and dpkg say of each package.
_ACTS = {"Get:": "downloading", "Unpacking ": "unpacking", "Setting up ": "configuring"}
_NO_SPACE = ("No space left on device", "enough free space")
_ERROR_STARTS = ("E: ", "dpkg: error", "mmdebstrap: ")


class Watcher:
    """Follows mmdebstrap's output line by line: how far it is, and why it failed."""

    def __init__(self) -> None:
        """Start before the first line."""
        self.phase = "starting mmdebstrap"
        self.act = ""  # of _ACTS; "" in a phase that goes by no packages
        self.done: dict[str, int] = {}  # packages by act
        self.total = 0  # packages of this part; 0 while unknown
        self.cause = ""  # the first error: what follows it is but its echo up the call chain
        self.no_space = False

    def see(self, line: str) -> None:
        """Take a line in."""
        for start, phase in _PHASES.items():
            if line.startswith(start):
                self.phase, self.act = phase, ""
        if " newly installed, " in line:
            self.total = int(line.partition(" newly installed")[0].rpartition(" ")[2])
            self.done.clear()
        for start, act in _ACTS.items():
            if line.startswith(start) and self.total:
                self.act = act
                self.done[act] = self.done.get(act, 0) + 1
        if line.startswith(_ERROR_STARTS) and not self.cause:
            self.cause = line.removeprefix("E: ").strip()
        if any(text in line for text in _NO_SPACE):
            self.no_space = True

    def doing(self) -> str:
        """Return what is being done: "unpacking the essential packages"."""
        return f"{self.act} {self.phase.partition(' ')[2]}" if self.act else self.phase

    def detail(self) -> str:
        """Return how far that is, "" where it is not known."""
        if not self.act:
            return ""
        return f"{min(self.done[self.act], self.total)} of {self.total}"


class Recipe(Record):
    """What a Debian tree is made of."""

    suite: str
    sources: tuple[str, ...]  # lines of sources.list(5); empty for mmdebstrap's default mirror
    variant: str  # mmdebstrap's set of packages to start from
    packages: tuple[str, ...]  # what is installed besides
    environment: tuple[tuple[str, str], ...] = ()  # for apt, such as proxies

    def command(self, program: str, root: str) -> list[str]:
        """Return the command line that makes the tree at `root`."""
        return [
            program,
            "--verbose",
            "--mode=root",
            "--format=directory",
            f"--variant={self.variant}",
            f"--include={','.join(self.packages)}",
            "--",
            self.suite,
            root,
            *self.sources,
        ]


def build(
    recipe: Recipe, root: str, *, log: int, progress: Progress, interruption: Interruption
) -> None:
    """Make a Debian tree.

    Args:
        recipe: what it is made of.
        root: the directory to make; missing or empty.
        log: descriptor that takes the whole output; -1 for none.
        progress: told of each change.
        interruption: ends the build when a signal came.

    Raises:
        UnsupportedError: mmdebstrap is not installed.
        PymachineError: it failed or was interrupted; the line says why.
    """
    command = recipe.command(_find_program(), root)
    environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", **dict(recipe.environment)}
    watcher = Watcher()
    pid, pidfd, output = _start(command, environment)
    try:
        for line in _lines(output, interruption):
            if line:
                _log(log, line)
                watcher.see(line)
            progress(watcher.doing(), watcher.detail())
    finally:
        # Either it has ended, or we were interrupted.
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        os.close(output)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        _log(log, f"mmdebstrap: status {status}")
        raise PymachineError(
            f"mmdebstrap failed while {watcher.doing()}: {_why(watcher, status, root)}"
        )


def _find_program() -> str:
    import shutil

    program = shutil.which("mmdebstrap", path=_PATH)
    if program is None:
        raise UnsupportedError("mmdebstrap is not installed", "Run 'apt-get install mmdebstrap'.")
    return program


def _why(watcher: Watcher, status: int, root: str) -> str:
    if watcher.no_space:
        return f"no space left in {os.path.dirname(root)}"
    if watcher.cause:
        return watcher.cause
    number = -status if status < 0 else status - 128
    if number > 0:
        return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"


def _log(log: int, line: str) -> None:
    if log >= 0:
        try:
            os.write(log, f"{line}\n".encode(errors="surrogateescape"))
        except OSError:  # the log's disk is full as well: the build matters more
            pass


def _lines(fd: int, interruption: Interruption) -> Iterator[str]:
    """Yield the lines that arrive, and "" after each second in which none did."""
    rest = b""
    while True:
        ready = select.select([fd, interruption.fd], [], [], 1.0)[0]
        interruption.check()
        if not ready:
            yield ""
            continue
        data = os.read(fd, 1 << 16)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="surrogateescape")
    if rest:
        yield rest.decode(errors="surrogateescape")


def _start(command: list[str], environment: dict[str, str]) -> tuple[int, int, int]:
    """Run a command in namespaces of its own; return its PID, a pidfd, and its output."""
    output, into = os.pipe()
    parent = os.pidfd_open(os.getpid())
    pid, pidfd = clone3(const.CLONE_NEWNS | const.CLONE_NEWPID)
    if pid == 0:
        status = 127
        try:
            status = _be_init(command, environment, into, parent)
        except BaseException as error:  # noqa: BLE001 - the output is the only way out of here
            os.write(into, f"E: {error}\n".encode(errors="replace"))
        finally:
            os._exit(status)
    os.close(into)
    os.close(parent)
    return pid, pidfd, output


def _be_init(command: list[str], environment: dict[str, str], into: int, parent: int) -> int:
    """Be PID 1 of the namespace: prepare it, start the command, reap until it ends.

    This process keeps the descriptors that it was born with, and so the image's lock: whoever can
    take that knows that the build is over, not only that who ordered it is gone.
    """
    check(libc.prctl(const.PR_SET_PDEATHSIG, const.SIGKILL, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG")
    if select.select([parent], [], [], 0)[0]:  # it died before it could be told to us
        return 1
    os.setsid()  # the terminal's Ctrl-C is for our parent, who then kills us
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    mount("", "/", flags=const.MS_REC | const.MS_SLAVE)
    flags = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC
    mount("proc", "/proc", "proc", flags)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (into, 1), (into, 2)):
        os.dup2(source, target)
    os.umask(0o022)
    os.chdir("/")
    worker = os.fork()
    if worker == 0:
        os.execve(command[0], command, environment)
    while True:
        pid, result = os.wait()
        if pid == worker:
            status = os.waitstatus_to_exitcode(result)
            return 128 - status if status < 0 else status
