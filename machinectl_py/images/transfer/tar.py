"""Trees from and to archives, by GNU tar; tar(1), pax(5).

All that a file system can say of a file goes both ways: owners and modes, times to the
nanosecond, hard links, holes, device nodes, extended attributes (of which capabilities and
ACLs are two). Names in an archive can hurt nobody but the archive's own tree: confine.py.
"""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.errors import ConflictError, PymachineError
from machinectl_py.images import store
from machinectl_py.images.transfer import compress
from machinectl_py.images.transfer.confine import Place, Tool, World, find_program
from machinectl_py.images.transfer.flow import (
    position,
    size_text,
    wide_pipe,
)
from machinectl_py.images.transfer.unpack import Unpacking
from machinectl_py.kernel import const
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.chown_tree import BUSY_BASE, RANGE, range_of_tree
from machinectl_py.kernel.idmap import IdMaps, make_user_namespace, same_maps, set_idmap
from machinectl_py.kernel.mount import open_tree, set_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.images.aside import Aside
    from machinectl_py.images.transfer.compress import Format
    from machinectl_py.images.transfer.job import Job
    from machinectl_py.images.transfer.source import Source

_TREE = "tree"
# To own and change every file, to make devices, and for attributes that only CAP_SYS_ADMIN sets
# and sees ("trusted."); xattr(7).
WRITER = parse_names(("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN"))
# To read every file, also with O_NOATIME.
READER = parse_names(("DAC_READ_SEARCH", "FOWNER", "SYS_ADMIN"))
_READ = const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV
# ACLs are attributes among the others ("system.posix_acl_access"), with ids as numbers, as in what
# systemd exports. By --acls tar(1) would write them as text besides, with a look at each file, and,
# unpacking, take them away where there is no such text.
# XFS shows ACLs a second time, as it stores them: with ids that no map has touched.
_ATTRIBUTES = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.SGI_ACL_*")

# In units of 512 bytes: fewer calls than with the 10 kB of tapes.
_RECORD = "--blocking-factor=1024"


def _program() -> str:
    """Return the path of GNU tar, which is "gtar" where another one is "tar".

    Raises:
        UnsupportedError: it is not installed.
    """
    return find_program("gtar", "tar", package="tar")


def unpack_command(directory: str) -> tuple[str, ...]:
    """Return the words that unpack standard input, an archive not compressed, in a place.

    Raises:
        UnsupportedError: tar is not installed.
    """
    return (
        *(_program(), "--extract", "--file=-", f"--directory=/{directory}"),
        *("--preserve-permissions", "--same-owner", "--numeric-owner", *_ATTRIBUTES),
        # Times before 1970, or after now here, are the archive's to choose.
        *("--warning=no-timestamp", _RECORD),
    )


def pack_command(directory: str) -> tuple[str, ...]:
    """Return the words that archive, to standard output, what is named after them in a place.

    Raises:
        UnsupportedError: tar is not installed.
    """
    return (
        *(_program(), "--create", "--file=-", f"--directory=/{directory}"),
        *("--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"),
        *("--numeric-owner", *_ATTRIBUTES, "--sparse", "--atime-preserve=system"),
        *("--warning=no-file-ignored", _RECORD),  # sockets are of no use
    )


def unpack(
    source: Source,
    aside: Aside,
    job: Job,
    *,
    limit: int = 0,
    warn: Callable[[str], None],
) -> None:
    """Make the tree of an archive in a place aside.

    Args:
        source: the archive, compressed or not.
        aside: where it is made.
        job: told how much has been read.
        limit: the most that it may unpack to, in bytes; 0 for what the disk has.
        warn: called with each thing that is not as the archive has it.

    Raises:
        PymachineError: it is no good archive, or does not fit; interrupted.
        OSError: with the path.
    """
    aside.make_directory()
    tree = open_tree(aside.path, recursive=False)
    try:
        attributes = const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV | const.MOUNT_ATTR_NOEXEC
        set_attributes(tree, attributes, recursive=False)
        unpacking = Unpacking(source, limit, job)
        command = (*unpack_command(_TREE), "--ignore-zeros", "--read-full-records")
        tool = Tool(command=command, stdin=unpacking.output, stdout=-1, capabilities=WRITER)
        world = World(places=(Place(name=_TREE, mount=tree),))
        for line in unpacking.into(tool, world):
            warn(line)
    finally:
        os.close(tree)
    if not os.listdir(aside.path):
        raise PymachineError(f"{source.title} is an archive of nothing")
    if _is_cut_off(source):
        warn("the archive has no end mark; it may have been cut off, and files be missing")
    lift_tree(aside.path)


def _is_cut_off(source: Source) -> bool:
    """Say whether a file, not compressed, lacks the zeros that tar(5) ends with.

    tar(1) takes one that ends between two members, or in a header, for whole.
    """
    if not source.is_file or compress.detect(source.head) is not None:
        return False
    return any(os.pread(source.fd, 512, max(source.begin + source.size - 512, 0)))


def lift_tree(root: str) -> None:
    """Move the tree up, if the root holds nothing but a directory with a whole system in it.

    Many archives begin with the directory that they were made of.

    Raises:
        OSError: with the path.
    """
    entries = os.listdir(root)
    if len(entries) != 1 or not _is_system(f"{root}/{entries[0]}"):
        return
    lift(root, entries[0])


def lift(root: str, name: str) -> None:
    """Make a directory what the directory that holds it is, with all that is in it.

    Raises:
        OSError: with the path.
    """
    inner = f"{root}/.{os.urandom(8).hex()}"
    os.rename(f"{root}/{name}", inner)
    status = os.stat(inner)
    for entry in os.listdir(inner):
        os.rename(f"{inner}/{entry}", f"{root}/{entry}")
    os.chown(root, status.st_uid, status.st_gid)
    os.chmod(root, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(inner):
        os.setxattr(root, attribute, os.getxattr(inner, attribute))
    os.rmdir(inner)
    os.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_system(path: str) -> bool:
    """Say whether a directory holds an operating system, following no link out of it."""
    if not stat.S_ISDIR(os.stat(path, follow_symlinks=False).st_mode):
        return False
    return store.has_os_release(path)


def take_tree(root: str) -> int:
    """Return a detached mount of a tree; one that is seen by way of its descriptor is that already.

    Before Linux 6.15 no copy of such a mount can be made.
    """
    name = root.removeprefix("/proc/self/fd/")
    return os.dup(int(name)) if name != root else open_tree(root, recursive=False)


def pack(root: str, output: int, format_: Format | None, job: Job) -> None:
    """Write the archive of a tree; the same tree gives the same bytes.

    What is mounted in the tree is left out, subvolumes are not. A tree that is owned by a range
    of ids, as that of a machine with a user namespace, is archived as if by the ids from 0 on.

    Args:
        root: the tree.
        output: descriptor to write to.
        format_: how to compress; None for not at all.
        job: told how much has been written.

    Raises:
        PymachineError: it cannot be read whole, or written; interrupted.
        OSError: with the path.
    """
    tree = take_tree(root)
    try:
        namespace = _unshift(tree, root)
        set_attributes(tree, _READ, recursive=False)
        reader = Tool(
            command=(*pack_command(_TREE), "--sort=name", "."),
            stdin=-1,
            stdout=output,
            capabilities=READER,
            user_namespace=namespace,
        )
        world = World(places=(Place(name=_TREE, mount=tree),))
        try:
            _write(reader, world, output, format_, job)
        finally:
            if namespace >= 0:
                os.close(namespace)
    finally:
        os.close(tree)


def _unshift(tree: int, root: str) -> int:
    """Have a detached mount show a range of ids as those from 0 on.

    Returns:
        -1; where the file system cannot do so, the user namespace in which the ids are seen so.

    Raises:
        ConflictError: the change to another range was interrupted.
        OSError: with errno.
    """
    base = range_of_tree(root)
    if base == BUSY_BASE:
        raise ConflictError(
            f"{root} is half changed to another range of ids", "Boot it once: that completes it."
        )
    if not base:  # None: by no range
        return -1
    maps = IdMaps(uids=((base, 0, RANGE),), gids=((base, 0, RANGE),))
    namespace = make_user_namespace(maps)
    try:
        set_idmap(tree, namespace)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        return make_user_namespace(same_maps((0, base, RANGE)))
    finally:
        os.close(namespace)
    return -1


def _write(reader: Tool, world: World, output: int, format_: Format | None, job: Job) -> None:
    tools: tuple[Tool, ...] = (reader,)
    pipe: tuple[int, ...] = ()
    if format_ is not None:
        pipe = wide_pipe()
        packer = Tool(command=format_.packer(), stdin=pipe[0], stdout=output)
        tools = (reader.replace(stdout=pipe[1]), packer)
    begin = position(output)

    def look() -> None:
        job.progress("packing", size_text(position(output) - begin))

    def close_ours() -> None:
        for fd in pipe:
            os.close(fd)

    job.run(tools, world, look, "Cannot pack the tree", started=close_ours)
