"""Where images are, what they may be called, and whether a tree can be booted.

Cheap: `boot` and `run` pass through here. The rules are those of systemd: machine(5) has the
names, systemd-nspawn(1) the places and what a root must have.
"""

from __future__ import annotations

import os
import stat

from machinectl_py.errors import ConfigError, ConflictError, NotFoundError
from machinectl_py.images.pick import pick_directory, pick_image
from machinectl_py.kernel.chase import chase

MACHINES_DIR = "/var/lib/machines"
# In the order of systemd-nspawn's search for --machine=NAME.
SEARCH_PATH = (
    "/etc/machines",
    "/run/machines",
    MACHINES_DIR,
    "/usr/local/lib/machines",
    "/usr/lib/machines",
)
INITS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init")
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5)
_HOST_NAME_MAX = 64  # <linux/utsname.h>
_LABEL_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_ID_LENGTH = 32


def is_valid_name(name: str) -> bool:
    """Say whether a machine or image may have this name: a hostname, at most 64 characters.

    Labels of letters, digits and inner hyphens, joined by single dots; see machine(5). So no
    name is hidden, leaves its directory or is mistaken for an option.
    """
    return len(name) <= _HOST_NAME_MAX and all(_is_label(part) for part in name.split("."))


def _is_label(text: str) -> bool:
    return (
        text != ""
        and _LABEL_CHARACTERS.issuperset(text)
        and not text.startswith("-")
        and not text.endswith("-")
    )


def check_name(name: str) -> None:
    """Refuse a name that no machine can have.

    Raises:
        ConfigError: it is not valid.
    """
    if not is_valid_name(name):
        raise ConfigError(
            f"'{_printable(name)}' is no valid machine name",
            "A name is letters, digits, inner hyphens and single dots, at most 64 of them.",
        )


def ephemeral_name(name: str) -> str:
    """Return the name of one of many machines that run on snapshots of `name`."""
    return f"{name}-{os.urandom(8).hex()}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def image_names() -> tuple[str, ...]:
    """Return the names of the images that are directories, sorted.

    What is hidden by a leading dot, such as a pull under way, has no valid name.
    """
    found: set[str] = set()
    for place in SEARCH_PATH:
        try:
            with os.scandir(place) as entries:
                found.update(e.name for e in entries if e.is_dir() and is_valid_name(e.name))
        except OSError:  # no such place, or not ours to read
            continue
    return tuple(sorted(found))


def image_paths(*, hidden: bool = False) -> tuple[tuple[str, str], ...]:
    """Return name and path of each image, directory or `.raw` file, by name.

    Of two of one name it is the one that `find_root` finds.

    Args:
        hidden: those whose name begins with a dot, too.
    """
    found: dict[str, str] = {}
    for place in SEARCH_PATH:
        try:
            with os.scandir(place) as entries:
                here = sorted((e.name, e.is_dir()) for e in entries)
        except OSError:  # no such place, or not ours to read
            continue
        for entry, is_directory in here:
            name = entry if is_directory else entry.removesuffix(".raw")
            if not is_directory and (name == entry or not os.path.exists(f"{place}/{entry}")):
                continue  # no image, or a link to one that is not there
            if is_valid_name(name) or (hidden and name.startswith(".")):
                found.setdefault(name, f"{place}/{entry}")
    return tuple(sorted(found.items()))


def find_root(name: str) -> str:
    """Return the directory or disk image of a name, absolute and without symbolic links.

    Raises:
        ConfigError: the name is not valid.
        NotFoundError: there is no image of that name, or no version of it.
    """
    return os.path.realpath(_find(name))


def find_entry(name: str) -> str:
    """Return what bears the name of an image: `find_root`, or the symbolic link that leads there.

    Raises:
        ConfigError, NotFoundError: as `find_root`.
    """
    path = _find(name)
    return path if os.path.islink(path) else os.path.realpath(path)


def _find(name: str) -> str:
    check_name(name)
    for place in SEARCH_PATH:
        path = f"{place}/{name}"
        if os.path.isdir(path):
            return path
        if os.path.exists(f"{path}.raw"):
            return f"{path}.raw"
        if os.path.isdir(f"{path}.v"):
            return pick_directory(f"{path}.v")
        if os.path.isdir(f"{path}.raw.v"):
            return pick_image(f"{path}.raw.v")
    raise NotFoundError(
        f"There is no image '{name}' in {MACHINES_DIR}",
        f"'pymachine images' lists what there is, 'pymachine pull debian --name={name}' makes one.",
    )


def image_exists(name: str) -> bool:
    """Say whether there is an image of this name."""
    try:
        find_root(name)
    except NotFoundError:
        return False
    return True


def is_read_only(path: str) -> bool:
    """Say whether an image may not be changed: by its mark, its mode or its file system."""
    from machinectl_py.kernel.inode_flags import is_immutable
    from machinectl_py.kernel.statfs import is_subvolume

    if not os.access(path, os.W_OK):
        return True
    if not os.path.isdir(path):
        return not os.stat(path).st_mode & 0o222
    if is_subvolume(path):
        from machinectl_py.kernel import btrfs

        return btrfs.is_read_only(path)
    return is_immutable(path)


def is_image(root: str) -> bool:
    """Say whether a root is a disk image or a block device, not a directory."""
    return os.path.exists(root) and not os.path.isdir(root)


def check_tree(root: str, shown: str = "") -> None:
    """Refuse a directory that is not the root of an operating system.

    Args:
        root: path of the directory.
        shown: what to call it, if that is not `root`.

    Raises:
        NotFoundError: there is no such directory.
        ConfigError: it is no directory, the host's own root, or holds no os-release(5).
    """
    shown = shown or root
    try:
        found = os.stat(root)
    except OSError as error:
        raise NotFoundError(f"{shown}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{shown} is not a directory")
    host = os.stat("/")
    if (found.st_dev, found.st_ino) == (host.st_dev, host.st_ino):
        raise ConfigError(f"{shown} is the root of this host, which runs already")
    if not has_os_release(root):
        raise ConfigError(
            f"{shown} has no os-release file, so it is not the root of an operating system",
            "'pymachine pull debian' makes one.",
        )


def has_os_release(root: str) -> bool:
    """Say whether a directory is the root of an operating system; os-release(5)."""
    return any(_regular(root, path) for path in _OS_RELEASE)


def find_init(root: str, shown: str = "") -> str:
    """Return the path, inside the root, of the init that it would boot.

    Args:
        root: path of the directory.
        shown: what to call it, if that is not `root`.

    Raises:
        NotFoundError: there is none that can be executed.
    """
    for path in INITS:
        if _regular(root, path) & 0o111:
            return path
    raise NotFoundError(
        f"{shown or root} has no init that can be executed: none of {', '.join(INITS)}",
        "Install systemd-sysv in it, or run a command: 'pymachine run -D DIR COMMAND'.",
    )


def machine_id(root: str) -> str:
    """Return the machine ID that the tree has; "" if none has been given yet.

    See machine-id(5): the file may be missing, empty, or say "uninitialized".
    """
    try:
        handle = _chase(root, "/etc/machine-id")
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            text = file.read(_ID_LENGTH + 1).decode("ascii", "replace").strip()
    except OSError:  # not ours to read
        return ""
    finally:
        os.close(handle)
    whole = len(text) == _ID_LENGTH and set(text) <= set("0123456789abcdef")
    return text if whole and text.strip("0") else ""


def refuse_existing(name: str) -> None:
    """Refuse the name of an image that exists already.

    Raises:
        ConflictError: it does.
    """
    if path := existing(name):
        raise ConflictError(
            f"{path} exists already",
            f"'pymachine boot {name}' starts it; --force replaces it, another name makes another.",
        )


def existing(name: str) -> str:
    """Return the path of the image of this name in /var/lib/machines; "" if there is none."""
    paths = (f"{MACHINES_DIR}/{name}", f"{MACHINES_DIR}/{name}.raw")
    return next((path for path in paths if os.path.lexists(path)), "")


def _chase(root: str, path: str) -> int:
    """Return an O_PATH descriptor of what a path inside a root is, links resolved there."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return chase(directory, path)
    finally:
        os.close(directory)


def _regular(root: str, path: str) -> int:
    """Return the mode of a regular file inside the root, links resolved there; 0 if it is none."""
    try:
        fd = _chase(root, path)
    except OSError:
        return 0
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    return mode if stat.S_ISREG(mode) else 0
