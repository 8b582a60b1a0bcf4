"""What is installed in a machine's root: os-release(5) and passwd(5), read as hostile files.

The root belongs to the machine, so each path is resolved inside it, and only a regular file of
a modest size is read: a FIFO or a device planted there must not hold up `pymachine list`.
"""

from __future__ import annotations

import os

from machinectl_py.kernel.chase import chase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState

_MOST_BYTES = 1 << 20
_S_IFMT, _S_IFREG = 0o170000, 0o100000  # <sys/stat.h>


def os_release(state: MachineState) -> dict[str, str]:
    """Return the fields of the machine's os-release(5); empty if it has none."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        text = read_inside(state, path)
        if text:
            return parse_environment(text)
    return {}


def os_release_in(root: str) -> dict[str, str]:
    """Return the fields of os-release(5) of a root that is not a running machine's.

    Raises:
        OSError: the root cannot be opened.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in ("etc/os-release", "usr/lib/os-release"):
            try:
                if text := _read_regular(directory, path):
                    return parse_environment(text)
            except OSError:
                continue
    finally:
        os.close(directory)
    return {}


def user_names(state: MachineState) -> dict[int, str]:
    """Return the names of the machine's own users by their uid inside; passwd(5)."""
    rows = (line.split(":") for line in read_inside(state, "etc/passwd").splitlines())
    names: dict[int, str] = {}
    for row in rows:
        if len(row) == 7 and row[2].isdigit():
            names.setdefault(int(row[2]), row[0])
    return names


def read_inside(state: MachineState, path: str) -> str:
    """Return the text of a regular file inside a machine; "" if it is missing or cannot be read.

    Looked for in the leader's root, where more may be mounted than in the directory on the host;
    the directory serves who may not look there, and while the leader has not pivoted yet.
    """
    roots = (f"/proc/{state.leader}/root",) if state.phase == "running" else ()
    for root in (*roots, state.root):
        try:
            directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            return _read_regular(directory, path)
        except OSError:
            return ""
        finally:
            os.close(directory)
    return ""


def _read_regular(root: int, path: str) -> str:
    handle = chase(root, path)
    try:
        if os.fstat(handle).st_mode & _S_IFMT != _S_IFREG:
            return ""
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(handle)
    try:
        return os.read(fd, _MOST_BYTES).decode(errors="replace")
    finally:
        os.close(fd)


def parse_environment(text: str) -> dict[str, str]:
    """Return the assignments of a file like os-release(5), with the shell's quoting undone."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = _unquote(value.strip())
    return found


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    plain, escaped = "", False
    for letter in value:
        if letter == "\\" and not escaped:
            escaped = True
            continue
        plain += letter
        escaped = False
    return plain
