"""Files into a running machine, and out of it.

tar(1) on one side writes what tar(1) on the other reads, each in the user namespace of its side, so
that owners are the same numbers on both. Both run confined: no path of the machine's leads out
of the directory that is copied to. What is copied is made aside, under a hidden name, and renamed
when it is whole.
"""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.errors import ConfigError, ConflictError, NotFoundError, PymachineError
from machinectl_py.images.interruption import Interruption
from machinectl_py.images.transfer.confine import Place, Tool, World
from machinectl_py.images.transfer.flow import wide_pipe
from machinectl_py.images.transfer.job import Job
from machinectl_py.images.transfer.tar import READER, WRITER, pack_command, unpack_command
from machinectl_py.kernel import const
from machinectl_py.kernel.foreign_mounts import clone_directory
from machinectl_py.kernel.idmap import become_root
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.kernel.namespaces import namespace_id, setns
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.kernel.rename import rename_new
from machinectl_py.record import Record
from machinectl_py.runtime.enter import open_leader, require_may_enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.runtime.state import MachineState

_SAFE = const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV | const.MOUNT_ATTR_NOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Side(Record):
    """Where something is, or shall be."""

    title: str  # the path, for messages
    parent: int  # descriptor of a detached mount of the directory that holds it
    name: str  # in there
    user_namespace: int  # descriptor; -1 is ours

    def status(self) -> os.stat_result | None:
        """Return what is there; None if nothing is."""
        try:
            return os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def as_root(self, work: Callable[[], None]) -> None:
        """Do something to files as this side's root.

        Ours is nobody on a mount whose ids are mapped: may neither make names there nor rename.

        Raises:
            OSError: as `work`, with the title.
        """
        if self.user_namespace < 0:
            work()
            return
        pid = os.fork()
        if pid == 0:
            number = errno.EIO
            try:
                setns(self.user_namespace, const.CLONE_NEWUSER)
                become_root()
                work()
                number = 0
            except OSError as error:
                number = error.errno or number
            finally:
                os._exit(number)
        if number := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            number = number if number > 0 else errno.EINTR
            raise OSError(number, os.strerror(number), self.title)

    def close(self) -> None:
        """Let go of it."""
        for fd in (self.parent, self.user_namespace):
            if fd >= 0:
                os.close(fd)


def copy_to(state: MachineState, source: str, target: str, *, force: bool) -> tuple[str, ...]:
    """Copy a file or tree of the host's into a running machine.

    Args:
        state: the machine.
        source: absolute path on the host.
        target: absolute path inside, of the copy itself; its directory must be there.
        force: replace a file that is there, and put into a directory that is there.

    Returns:
        What could not be copied as it is.

    Raises:
        PymachineError: it cannot be copied; nothing is left of it, but with `force` in a
            directory that was there.
    """
    require_may_enter(state)
    return _copy(_host_side(source), _machine_side(state, target), force=force)


def copy_from(state: MachineState, source: str, target: str, *, force: bool) -> tuple[str, ...]:
    """Copy a file or tree of a running machine's to the host; otherwise as `copy_to`."""
    require_may_enter(state)
    return _copy(_machine_side(state, source), _host_side(target), force=force)


def _host_side(path: str) -> _Side:
    directory, name = _split(path)
    try:
        # Links on the way are the host's own, and followed.
        parent = open_tree(os.path.realpath(directory, strict=True))
    except OSError as error:
        raise NotFoundError(f"{directory} on this host: {error.strerror}") from error
    return _Side(title=path, parent=parent, name=name, user_namespace=-1)


def _machine_side(state: MachineState, path: str) -> _Side:
    directory, name = _split(path)
    leader = open_leader(state)
    try:
        parent = clone_directory(leader, directory)
        user = -1
        if namespace_id(state.leader, "user") != namespace_id("self", "user"):
            user = os.open(f"/proc/{state.leader}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(
            f"{directory} in machine '{state.name}': {os.strerror(error.errno or 0)}"
        ) from error
    finally:
        os.close(leader)
    return _Side(title=f"{state.name}:{path}", parent=parent, name=name, user_namespace=user)


def _split(path: str) -> tuple[str, str]:
    """Return the directory and the name in it.

    Raises:
        ConfigError: the path is not absolute, or is the root.
    """
    if not path.startswith("/"):
        raise ConfigError(f"'{path}' is no absolute path")
    directory, _, name = os.path.normpath(path).rpartition("/")
    if not name:
        raise ConfigError("The root itself cannot be copied", "'pymachine export-tar' packs it.")
    return directory.replace("//", "/") or "/", name


def _copy(source: _Side, target: _Side, *, force: bool) -> tuple[str, ...]:
    try:
        found, there = source.status(), target.status()
        if found is None:
            raise NotFoundError(f"There is no {source.title}")
        if there is not None and not force:
            raise ConflictError(f"{target.title} exists already", "--force replaces it.")
        for side, more in ((source, const.MOUNT_ATTR_RDONLY), (target, 0)):
            set_attributes(side.parent, _SAFE | more)
        merges = there is not None and stat.S_ISDIR(there.st_mode)
        if merges and not stat.S_ISDIR(found.st_mode):
            raise ConflictError(f"{target.title} is a directory, and {source.title} is none")
        with Interruption() as interruption:
            job = Job(lambda _phase, _detail: None, interruption, -1)
            if merges:
                what = (f"from/{source.name}", ".")
                return _run(job, source, target, what, f"to/{target.name}")
            return _make_aside(job, source, target, replaces=there is not None)
    finally:
        source.close()
        target.close()


def _make_aside(job: Job, source: _Side, target: _Side, *, replaces: bool) -> tuple[str, ...]:
    aside = f".#pymachine-{os.urandom(8).hex()}"
    try:
        target.as_root(lambda: os.mkdir(aside, 0o700, dir_fd=target.parent))
        told = _run(job, source, target, ("from", f"./{source.name}"), f"to/{aside}")
        made = os.open(aside, _DIRECTORY, dir_fd=target.parent)
        try:
            target.as_root(lambda: _rename(made, source.name, target, replaces=replaces))
        except FileExistsError as error:  # since we looked
            raise ConflictError(f"{target.title} exists already") from error
        finally:
            os.close(made)
        return told
    finally:
        remove_tree(aside, target.parent)


def _rename(directory: int, name: str, target: _Side, *, replaces: bool) -> None:
    if replaces:
        os.replace(name, target.name, src_dir_fd=directory, dst_dir_fd=target.parent)
    else:
        rename_new(directory, name, target.parent, target.name)


def _run(
    job: Job, source: _Side, target: _Side, what: tuple[str, str], into: str
) -> tuple[str, ...]:
    """Have one tar read and the other write.

    Args:
        job: that this is.
        source: where from, seen as "from".
        target: where to, seen as "to".
        what: the directory to be in, and what to pack there.
        into: the directory to unpack in.
    """
    read, write = wide_pipe()
    reader = Tool(
        command=(*pack_command(what[0]), what[1]),
        stdin=-1,
        stdout=write,
        capabilities=READER,
        user_namespace=source.user_namespace,
    )
    writer = Tool(
        command=unpack_command(into),
        stdin=read,
        stdout=-1,
        capabilities=WRITER,
        user_namespace=target.user_namespace,
    )
    places = (("from", source), ("to", target))
    world = World(places=tuple(Place(name=name, mount=side.parent) for name, side in places))

    def close_ours() -> None:
        os.close(read)
        os.close(write)

    try:
        return job.run(
            (reader, writer),
            world,
            job.interruption.check,
            f"Cannot copy {source.title} to {target.title}",
            started=close_ours,
        )
    except OSError as error:
        raise PymachineError(f"Cannot copy {source.title}: {error.strerror}") from error
