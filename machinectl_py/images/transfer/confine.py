"""Programs that read what strangers wrote, run where they can do little harm.

They get a root of their own: an empty file system in memory with the host's programs, read-only,
and the trees that they are given. A path that an archive names, absolute, through ".." or
through a link that it brought itself, can lead to these programs or into the tree and nowhere
else. They have no network, no devices, no other process than theirs, and of the capabilities
only those they are given. When the one who started them goes, the kernel kills them all.
See mount_namespaces(7), pid_namespaces(7), pivot_root(2).
"""

from __future__ import annotations

import os
import select
import signal
import time

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import const, process
from machinectl_py.kernel.capabilities import limit_capabilities
from machinectl_py.kernel.filesystem import make_filesystem
from machinectl_py.kernel.idmap import become_root
from machinectl_py.kernel.mount import mount, move_mount, open_tree, pivot_root, set_attributes
from machinectl_py.kernel.mount import umount2 as unmount
from machinectl_py.kernel.namespaces import clone3, setns
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")  # hier(7)
_NAMESPACES = const.CLONE_NEWNS | const.CLONE_NEWNET | const.CLONE_NEWIPC | const.CLONE_NEWUTS
_SEALED = const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV
_NOT_EXECUTED = 127
_TRIES = 1000


class Tool(Record):
    """A program to run, and what it may."""

    command: tuple[str, ...]  # the program by its absolute path
    stdin: int  # descriptors; -1 for nothing to read
    stdout: int  # -1 joins the errors
    capabilities: int = 0  # mask
    environment: tuple[tuple[str, str], ...] = ()  # besides PATH and a plain locale
    directory: str = ""  # of the root, to be in
    user_namespace: int = -1  # descriptor of the one it runs in, as its uid 0; -1: the caller's


class Place(Record):
    """Something of the host that the programs see."""

    name: str  # in the root: "tree"
    mount: int  # descriptor of a detached mount, of a directory or of a file
    directory: bool = True


def find_program(*names: str, package: str) -> str:
    """Return the path of the first of these programs that is installed.

    Raises:
        UnsupportedError: none is.
    """
    for name in names:
        for directory in _PATH.split(":"):
            path = f"{directory}/{name}"
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    raise UnsupportedError(f"{names[-1]} is not installed", f"Run 'apt-get install {package}'.")


class World(Record):
    """What tools find around them besides the host's programs."""

    places: tuple[Place, ...] = ()
    files: tuple[tuple[str, str], ...] = ()  # small ones: (path in the root, content)
    processes: bool = True  # a PID namespace of their own, and /proc; not for locks that name PIDs


class Confinement:
    """Tools that run side by side in namespaces of their own."""

    def __init__(
        self, tools: tuple[Tool, ...], world: World, *, keep: tuple[int, ...] = ()
    ) -> None:
        """Start them.

        Args:
            tools: the programs.
            world: where they run.
            keep: descriptors that stay open as long as any of them lives, such as a lock.

        Raises:
            OSError: the namespaces cannot be made.
        """
        self.tools = tools
        self.statuses: dict[int, int] = {}
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in tools]
        self.errors = [read for read, _ in pipes]
        self.told, tell = os.pipe2(os.O_CLOEXEC)
        parent = os.pidfd_open(os.getpid())
        _wait_for_ended_threads()
        processes = const.CLONE_NEWPID if world.processes else 0
        self.pid, self.pidfd = clone3(_NAMESPACES | processes)
        if self.pid == 0:
            _die_with(parent)
            writes = [write for _, write in pipes]
            _be_init(tools, world, writes, (tell, *keep))
        for fd in (tell, parent, *(write for _, write in pipes)):
            os.close(fd)

    def read_status(self) -> None:
        """Take in which tool ended how; to be called when `told` is readable."""
        told = os.read(self.told, 4096)
        for line in told.split(b"\n")[:-1]:
            tool, status = line.split()
            self.statuses[int(tool)] = int(status)
        if not told:  # init was killed, and all with it
            for number in range(len(self.tools)):
                self.statuses.setdefault(number, -signal.SIGKILL)

    def is_over(self) -> bool:
        """Say whether all have ended."""
        return len(self.statuses) == len(self.tools)

    def close(self) -> None:
        """Kill what still runs, and wait for the end of it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for fd in (self.pidfd, self.told, *self.errors):
            os.close(fd)


def _wait_for_ended_threads() -> None:
    """Wait until threads that have been joined are gone.

    Python calls a thread ended when it is through with it, while the C library still takes it
    down, under locks of its own: a clone3(2) in that moment would hand the child a lock that
    nobody ever opens. Who waits in a system call, on the other hand, holds none.
    """
    for _ in range(_TRIES):
        if len(os.listdir("/proc/self/task")) == 1:
            return
        time.sleep(0.001)


def _die_with(parent: int) -> None:
    process.set_parent_death_signal(signal.SIGKILL)
    if select.select([parent], [], [], 0)[0]:  # it died before it could be told to us
        os._exit(1)


def _be_init(
    tools: tuple[Tool, ...], world: World, errors: list[int], kept: tuple[int, ...]
) -> NoReturn:
    """Be PID 1: make the root, start the tools, tell the first of `kept` how each ended."""
    numbers: dict[int, int] = {}
    try:
        os.setsid()  # the terminal's Ctrl-C is for our parent, who then kills us
        process.reset_signals()
        os.umask(0)
        _enter_root(world)
        for number, tool in enumerate(tools):
            numbers[_start(tool, errors[number])] = number
        _close_all_but(set(kept))
        while numbers:
            pid, status = os.wait()
            if pid in numbers:
                code = os.waitstatus_to_exitcode(status)
                os.write(kept[0], f"{numbers.pop(pid)} {code}\n".encode())
    except BaseException as error:  # noqa: BLE001 - the output is the only way out of here
        try:
            os.write(errors[0], f"cannot confine {tools[0].command[0]}: {error}\n".encode())
        except OSError:
            pass
        os._exit(1)
    os._exit(0)


def _enter_root(world: World) -> None:
    mount("", "/", flags=const.MS_REC | const.MS_PRIVATE)
    programs = [name for name in _PROGRAMS if os.path.isdir(f"/{name}")]
    real = [name for name in programs if not os.path.islink(f"/{name}")]
    aliases = [(name, os.readlink(f"/{name}")) for name in programs if name not in real]
    found = [Place(name=name, mount=open_tree(f"/{name}")) for name in real]
    for place in found:
        set_attributes(place.mount, _SEALED)
    root = make_filesystem(
        "tmpfs", (("mode", "0755"), ("size", "1m")), _SEALED & ~const.MOUNT_ATTR_RDONLY
    )
    _attach(root, "/proc")  # any directory that is there for sure
    os.chdir("/proc")
    for name, target in aliases:
        os.symlink(target, name)
    for name, text in world.files:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    if world.processes:
        # glibc before 2.39 wants it for fchmodat(3); nothing but their own processes is in it.
        proc = make_filesystem("proc", (("subset", "pid"),), _SEALED | const.MOUNT_ATTR_NOEXEC)
        found.append(Place(name="proc", mount=proc))
    for place in (*found, *world.places):
        if place.directory:
            os.mkdir(place.name, 0o755)
        else:
            os.close(os.open(place.name, os.O_CREAT | os.O_WRONLY, 0o644))
        _attach(place.mount, place.name)
    pivot_root(".", ".")
    unmount(".", const.MNT_DETACH)
    os.chdir("/")
    set_attributes("/", const.MOUNT_ATTR_RDONLY, recursive=False)


def _attach(tree: int, path: str) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        move_mount(tree, target)
    finally:
        os.close(target)


def _start(tool: Tool, errors: int) -> int:
    """Start a tool; return its PID."""
    pid = os.fork()
    if pid:
        return pid
    try:
        stdin = tool.stdin if tool.stdin >= 0 else os.pipe()[0]  # whose writer is closed below
        ends = (stdin, tool.stdout if tool.stdout >= 0 else errors, errors)
        # Above the standard ones first, where none of these can be overwritten.
        high = [_duplicate_high(fd) for fd in ends]
        for number, fd in enumerate(high):
            os.dup2(fd, number)
        process.close_range(3, on_exec=True)
        process.set_parent_death_signal(signal.SIGKILL)  # where PID 1 takes nobody with it
        os.chdir(f"/{tool.directory}")
        if tool.user_namespace >= 0:
            setns(tool.user_namespace, const.CLONE_NEWUSER)
            become_root()
        process.set_no_new_privileges()
        limit_capabilities(tool.capabilities)
        words = (os.path.basename(tool.command[0]), *tool.command[1:])  # as it calls itself
        os.execve(tool.command[0], words, {"PATH": _PATH, "LC_ALL": "C", **dict(tool.environment)})
    except BaseException as error:  # noqa: BLE001 - the output is the only way out of here
        os.write(2, f"{tool.command[0]}: {error}\n".encode())
    finally:
        os._exit(_NOT_EXECUTED)


def _duplicate_high(fd: int) -> int:
    """Return a duplicate of a descriptor above the standard ones; F_DUPFD of fcntl(2)."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _close_all_but(kept: set[int]) -> None:
    """Close all others, so that the end of a tool is the end of its pipes."""
    before = -1
    for fd in sorted(kept):
        if fd > before + 1:
            process.close_range(before + 1, fd - 1)
        before = fd
    process.close_range(before + 1)
