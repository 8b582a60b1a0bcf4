"""What an overlay shows of its root directory: the attributes of the uppermost layer's."""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.record import Record

# Marks of overlayfs itself; the kernel's overlayfs.rst.
_MARKS = ("trusted.overlay.", "user.overlay.")


class RootAttributes(Record):
    """Owner, mode and extended attributes, ACLs among them, of a root directory."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o755
    extended: tuple[tuple[str, bytes], ...] = ()


def root_attributes(path: str) -> RootAttributes:
    """Return those of a directory; of a disk image, in which they are not looked up, the usual.

    Raises:
        OSError: with the path.
    """
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return RootAttributes()
    return RootAttributes(
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        extended=tuple(
            (name, os.getxattr(path, name))
            for name in sorted(os.listxattr(path))
            if not name.startswith(_MARKS)
        ),
    )


def give_attributes(path: str, attributes: RootAttributes) -> None:
    """Give a new directory attributes; a file system without extended ones goes without.

    Raises:
        OSError: with the path.
    """
    os.chown(path, attributes.uid, attributes.gid)
    os.chmod(path, attributes.mode)
    for name, value in attributes.extended:
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
