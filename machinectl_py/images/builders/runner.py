"""Runs what makes a tree, such that nothing of it can outlive the build.

It runs in a mount and a PID namespace of its own: what it mounts the host never sees, and when
the namespace's first process goes, the kernel kills every other one and drops the mounts,
whatever became of us.
"""

from __future__ import annotations

import os
import select
import signal

from machinectl_py.errors import PymachineError
from machinectl_py.images.builders.recipe import CACHE, WORK_DIR
from machinectl_py.kernel import const
from machinectl_py.kernel.libc import check, libc
from machinectl_py.kernel.mount import mount
from machinectl_py.kernel.namespaces import clone3
from machinectl_py.kernel.remove_tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machinectl_py.images.builders.recipe import Follower, Recipe
    from machinectl_py.images.interruption import Interruption

    # Called with what is being done, and how far it is ("" or "12 of 66").
    Progress = Callable[[str, str], None]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SEALED = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC
# What programs of packages may need while they are installed, and nothing by which harm is done.
_NODES = ("null", "zero", "full", "random", "urandom", "tty")


def build(
    recipe: Recipe,
    follower: Follower,
    root: str,
    *,
    log: int,
    progress: Progress,
    interruption: Interruption,
) -> None:
    """Make a tree.

    Args:
        recipe: what is to be run.
        follower: reads its output.
        root: the directory to make; missing or empty.
        log: descriptor that takes the whole output; -1 for none.
        progress: told of each change.
        interruption: ends the build when a signal came.

    Raises:
        PymachineError: it failed or was interrupted; the line says why.
        OSError: with the path.
    """
    os.makedirs(WORK_DIR, 0o700, exist_ok=True)
    pid, pidfd, output = _start(recipe, root)
    try:
        for line in _lines(output, interruption):
            if line:
                _log(log, line)
                follower.see(line)
            progress(follower.doing(), follower.detail())
    finally:
        # Either it has ended, or we were interrupted.
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        os.close(output)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        program = os.path.basename(recipe.commands[-1][0])
        _log(log, f"{program}: status {status}")
        why = _why(follower, status, root)
        raise PymachineError(f"{program} failed while {follower.doing()}: {why}")
    remove_tree(f"{root}/{CACHE}")


def _why(follower: Follower, status: int, root: str) -> str:
    if follower.no_space:
        return f"no space left in {os.path.dirname(root)}"
    if follower.cause:
        return follower.cause
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


def _start(recipe: Recipe, root: str) -> tuple[int, int, int]:
    """Run the commands in namespaces of their own; return init's PID, a pidfd, and the output."""
    output, into = os.pipe()
    parent = os.pidfd_open(os.getpid())
    pid, pidfd = clone3(const.CLONE_NEWNS | const.CLONE_NEWPID)
    if pid == 0:
        status = 127
        try:
            status = _be_init(recipe, root, into, parent)
        except BaseException as error:  # noqa: BLE001 - the output is the only way out of here
            os.write(into, f"E: {error}\n".encode(errors="replace"))
        finally:
            os._exit(status)
    os.close(into)
    os.close(parent)
    return pid, pidfd, output


def _be_init(recipe: Recipe, root: str, into: int, parent: int) -> int:
    """Be PID 1 of the namespace: prepare it, run the commands, reap until the last ends.

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
    mount("proc", "/proc", "proc", _SEALED)
    _write_files(recipe.files)
    if recipe.mounts:
        _mount_inside(root)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (into, 1), (into, 2)):
        os.dup2(source, target)
    os.umask(0o022)
    os.chdir("/")
    environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", **dict(recipe.environment)}
    for command in recipe.commands:
        if status := _run(command, environment):
            return status
    return 0


def _run(command: tuple[str, ...], environment: dict[str, str]) -> int:
    worker = os.fork()
    if worker == 0:
        os.execve(command[0], command, environment)
    while True:
        pid, result = os.wait()
        if pid == worker:
            status = os.waitstatus_to_exitcode(result)
            return 128 - status if status < 0 else status


def _write_files(files: tuple[tuple[str, str], ...]) -> None:
    mount("tmpfs", WORK_DIR, "tmpfs", const.MS_NOSUID | const.MS_NODEV, "mode=0700")
    for name, text in files:
        os.makedirs(os.path.dirname(f"{WORK_DIR}/{name}"), 0o700, exist_ok=True)
        with open(f"{WORK_DIR}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _mount_inside(root: str) -> None:
    """Mount what the scripts of packages find in a root: /proc, and the harmless devices."""
    for name, mode in (("proc", 0o555), ("sys", 0o555), ("dev", 0o755), (CACHE, 0o700)):
        os.makedirs(f"{root}/{name}", exist_ok=True)
        os.chmod(f"{root}/{name}", mode)
    mount("proc", f"{root}/proc", "proc", _SEALED)
    mount("tmpfs", f"{root}/dev", "tmpfs", const.MS_NOSUID | const.MS_NOEXEC, "mode=0755")
    for node in _NODES:
        path = f"{root}/dev/{node}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mount(f"/dev/{node}", path, flags=const.MS_BIND)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
