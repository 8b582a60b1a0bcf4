"""Disk images from and to files, with their holes; lseek(2) SEEK_HOLE, copy_file_range(2)."""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.errors import UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.transfer.confine import Place, Tool, World, find_program
from machinectl_py.images.transfer.flow import Room, position, size_text
from machinectl_py.images.transfer.unpack import Unpacking
from machinectl_py.kernel import const
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.mount import open_tree, set_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from machinectl_py.images.transfer.compress import Format
    from machinectl_py.images.transfer.job import Job
    from machinectl_py.images.transfer.source import Source

_QCOW2 = b"QFI\xfb"
# Formats of other programs, which would otherwise pass for disks that hold nothing.
_OTHERS = {b"KDMV": "vmdk", b"conectix": "vpc", b"vhdxfile": "vhdx", b"<<< ": "vdi"}
_READ = parse_names(("DAC_READ_SEARCH",))  # also a file that is another user's alone
_STEP = 1 << 24  # bytes between looks at the disk
_BLOCK = 1 << 15  # zeros of this size and place become a hole
_ZEROS = bytes(_BLOCK)
_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def unpack(source: Source, path: str, job: Job, *, limit: int = 0) -> None:
    """Make the disk image of a file or stream.

    Args:
        source: a raw or qcow2 image, compressed or not.
        path: of the image; there is nothing yet.
        job: told how much has been read.
        limit: the most that it may unpack to, in bytes; 0 for what the disk has.

    Raises:
        UnsupportedError: of another format; a program is not installed.
        PymachineError: it is damaged or does not fit; interrupted.
        OSError: with the path.
    """
    unpacking = Unpacking(source, limit, job)
    flags = os.O_RDWR | os.O_CLOEXEC
    target = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if unpacking.output == source.fd:
            if _is_qcow2(source.head):
                _convert(source.fd, path, job, limit)
                return
            with job.writing():
                _copy(source.fd, target, source.begin, unpacking.looker())
            return
        write_sparsely(unpacking.chunks(), target)
        if _is_qcow2(os.pread(target, 512, 0)):
            os.unlink(path)  # read from its descriptor, while the other is made
            os.close(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600))
            _convert(target, path, job, limit)
    finally:
        os.close(target)


def _is_qcow2(head: bytes) -> bool:
    """Say whether it is one of qcow2, and not raw.

    Raises:
        UnsupportedError: it is neither.
    """
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise UnsupportedError(
                f"Disk images of format {name} cannot be imported",
                "'qemu-img convert -O raw' makes a raw one.",
            )
    return head.startswith(_QCOW2)


def _copy(source: int, target: int, begin: int, look: Callable[[], None]) -> None:
    """Copy what is no hole, shared where the file system can, up to the source's end."""
    end = os.lseek(source, 0, os.SEEK_END)
    os.ftruncate(target, end - begin)
    at = begin
    while at < end:
        data, hole = _extent(source, at, end)
        at = data
        while at < hole:
            look()
            at += _copy_some(source, target, at, min(_STEP, hole - at), at - begin)
            os.lseek(source, at, os.SEEK_SET)  # for the progress


def _extent(fd: int, at: int, end: int) -> tuple[int, int]:
    """Return where the next data begin and end; (end, end) behind the last."""
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
        return data, os.lseek(fd, data, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end, end
        if error.errno == errno.EINVAL:  # a device has no holes
            return at, end
        raise


def _copy_some(source: int, target: int, at: int, count: int, to: int) -> int:
    try:
        copied = os.copy_file_range(source, target, count, at, to)
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
        copied = 0
    if copied:
        return copied
    data = os.pread(source, count, at)
    if not data:
        raise OSError(errno.EIO, "the file has become shorter")
    _write(target, data, to)
    return len(data)


def write_sparsely(chunks: Iterable[bytes], target: int) -> None:
    """Write a stream to an empty file, and leave out blocks of zeros.

    Raises:
        OSError: it cannot be written.
    """
    end, rest = 0, b""
    for chunk in chunks:
        data = rest + chunk
        whole = len(data) // _BLOCK * _BLOCK
        for offset in range(0, whole, _BLOCK):
            block = data[offset : offset + _BLOCK]
            if block != _ZEROS:
                _write(target, block, end + offset)
        end, rest = end + whole, data[whole:]
    _write(target, rest, end)
    os.ftruncate(target, end + len(rest))


def _write(target: int, data: bytes, at: int) -> None:
    """Write all of it: on a disk that becomes full the kernel writes a part at first."""
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], at + done)


def _convert(source: int, path: str, job: Job, limit: int) -> None:
    """Have qemu-img(1) make the raw image of one of qcow2.

    Of another file, which such an image may name as its backing, it can open none.
    """
    _refuse_large(source, limit)
    program = find_program("qemu-img", package="qemu-utils")
    room = Room(store.MACHINES_DIR)

    def look() -> None:
        job.progress("converting from qcow2", "")
        room.check()

    from_ = _open_read_only(source)
    into = open_tree(path, recursive=False)
    try:
        files = ("/proc/self/fd/0", "/raw")
        command = (program, "convert", "-f", "qcow2", "-O", "raw", "--", *files)
        tool = Tool(command=command, stdin=from_, stdout=-1, capabilities=_READ)
        world = World(places=(Place(name="raw", mount=into, directory=False),))
        job.run((tool,), world, look, "Cannot convert the image")
    finally:
        os.close(into)


def _open_read_only(source: int) -> int:
    """Open the file of a descriptor anew, so that who gets it cannot open it for writing.

    By a mount of its own, which is given to nobody as a path: a file without a name, such as one
    that was unpacked for this, cannot be mounted anywhere.
    """
    clone = open_tree(f"/proc/self/fd/{source}", recursive=False)
    try:
        set_attributes(clone, const.MOUNT_ATTR_RDONLY, recursive=False)
        return os.open(f"/proc/self/fd/{clone}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(clone)


def _refuse_large(source: int, limit: int) -> None:
    """Refuse an image whose disk is larger than the limit, by its own header.

    Raises:
        UnsupportedError: it is; or it is made of more than this file.
    """
    header = os.pread(source, 104, 0)
    size = int.from_bytes(header[24:32], "big")
    backed = int.from_bytes(header[8:16], "big") != 0
    version = int.from_bytes(header[4:8], "big")
    elsewhere = version >= 3 and int.from_bytes(header[72:80], "big") & 4  # external data file
    if backed or elsewhere:
        raise UnsupportedError(
            "The qcow2 image needs another file besides itself",
            "'qemu-img convert -O raw' makes one of both.",
        )
    if 0 < limit < size:
        raise UnsupportedError(
            f"The image is one of {size_text(size)}", "--limit=SIZE allows more."
        )


def pack(image: str, output: int, format_: Format | None, job: Job) -> None:
    """Write a disk image.

    Args:
        image: its path.
        output: descriptor to write to.
        format_: how to compress; None for not at all: then a file gets its holes too.
        job: told how much has been read.

    Raises:
        PymachineError: it cannot be read or written; interrupted.
        OSError: with the path.
    """
    source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    size = os.lseek(source, 0, os.SEEK_END) or 1
    os.lseek(source, 0, os.SEEK_SET)

    def look() -> None:
        job.interruption.check()
        job.progress("packing", f"{100 * position(source) // size} %")

    try:
        if format_ is not None:
            tool = Tool(command=format_.packer(), stdin=source, stdout=output)
            job.run((tool,), World(), look, "Cannot compress the image")
        elif stat.S_ISREG(os.fstat(output).st_mode) and not position(output):
            _copy(source, output, 0, look)
        else:
            while os.sendfile(output, source, None, 1 << 20):
                look()
    finally:
        os.close(source)
