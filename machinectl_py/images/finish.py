"""What a freshly built tree still needs before it is an image that many machines can come from."""

from __future__ import annotations

import os

from machinectl_py.kernel.paths import make_in_root, open_in_root

# A root with no password yet, as systemd-firstboot(1) knows it: nobody can log in by password
# until one is set, but `pymachine shell` can enter.
_UNPROVISIONED = "!unprovisioned"


def finish_tree(root: str, keyrings: tuple[str, ...] = ()) -> None:
    """Make the tree nobody's: no identity, no password, no name of the host that built it.

    Args:
        root: the tree.
        keyrings: absolute paths of keyrings that its sources name; copied where it has none.

    Raises:
        OSError: with the path.
    """
    # Empty, not missing: the first boot then stores the ID that it is given by container_uuid=,
    # and is no "first boot" that asks questions on the console; machine-id(5).
    write_in_root(root, "/etc/machine-id", b"")
    _remove(root, "/etc", "hostname")  # the build's host; without it the machine's name counts
    _lock_root_password(root)
    _set_mode(root, "/etc/resolv.conf", 0o644)
    for path in keyrings:
        if not _exists(root, path):
            with open(path, "rb") as file:
                write_in_root(root, path, file.read())


def write_in_root(root: str, path: str, data: bytes, mode: int = 0o644) -> None:
    """Write a file inside the root, links resolved there; an existing one keeps its owner.

    Raises:
        OSError: with the path.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(make_in_root(directory, path, directory=False, mode=mode))
        fd = open_in_root(directory, path, os.O_WRONLY | os.O_TRUNC)
    finally:
        os.close(directory)
    with open(fd, "wb") as file:
        file.write(data)


def _lock_root_password(root: str) -> None:
    try:
        fd = open_in_root(root, "/etc/shadow", os.O_RDONLY)
    except FileNotFoundError:  # nobody has a password there
        return
    with open(fd, "rb") as file:
        lines = file.read().decode().splitlines()
    changed = []
    for line in lines:
        user, _, rest = line.partition(":")
        _, _, after = rest.partition(":")
        changed.append(f"root:{_UNPROVISIONED}:{after}" if user == "root" else line)
    write_in_root(root, "/etc/shadow", ("\n".join(changed) + "\n").encode())


def _remove(root: str, directory: str, name: str) -> None:
    fd = open_in_root(root, directory, os.O_PATH | os.O_DIRECTORY)
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)


def _set_mode(root: str, path: str, mode: int) -> None:
    try:
        fd = open_in_root(root, path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _exists(root: str, path: str) -> bool:
    try:
        os.close(open_in_root(root, path, os.O_PATH))
    except FileNotFoundError:
        return False
    return True
