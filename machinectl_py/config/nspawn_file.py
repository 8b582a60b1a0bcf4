"""Reading `.nspawn` files, as systemd reads its files; systemd.nspawn(5), systemd.syntax(7)."""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Is told of a line that cannot be understood: path, number of the line, what is wrong.
    Complain = Callable[[str, int, str], None]

# Where the administrator's files are, which are trusted.
TRUSTED_DIRECTORIES = ("/etc/systemd/nspawn", "/run/systemd/nspawn")
_SIZE_MAX = 1 << 22  # bytes; no file of settings is near it
_BLANKS = " \t\n\r\v\f"


class Entry(Record):
    """An assignment in a file."""

    path: str
    line: int
    section: str
    key: str
    value: str


def settings_files(name: str, root: str) -> list[tuple[str, bool]]:
    """Return the files for a machine that there are, and whether each is trusted.

    The first `NAME.nspawn` of /etc, /run and beside the root counts; then the drop-ins of
    `NAME.nspawn.d` in the order of their names, of which /etc has precedence. A file that cannot
    be opened, as a link to itself, is among them: to read it tells why.

    Args:
        name: of the machine.
        root: its root directory or image; "" looks at the trusted places alone.

    Raises:
        ConfigError: a directory of drop-ins cannot be read.
    """
    beside = (os.path.dirname(root),) if root not in ("", "/") else ()
    found: list[tuple[str, bool]] = []
    for directory in (*TRUSTED_DIRECTORIES, *beside):
        path = f"{directory}/{name}.nspawn"
        if _is_there(path):
            found.append((path, directory in TRUSTED_DIRECTORIES))
            break
    drop_ins: dict[str, tuple[str, bool]] = {}
    for directory in (*TRUSTED_DIRECTORIES, *beside):
        for file in _drop_ins(f"{directory}/{name}.nspawn.d"):
            drop_ins.setdefault(
                file,
                (f"{directory}/{name}.nspawn.d/{file}", directory in TRUSTED_DIRECTORIES),
            )
    return [*found, *(drop_ins[file] for file in sorted(drop_ins))]


def _is_there(path: str) -> bool:
    """Say whether there is something, be it of no use; a link to nothing is nothing."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _drop_ins(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"Failed to read {directory}: {error.strerror}") from error
    return [name for name in names if name.endswith(".conf") and name[0] != "."]


def read_file(path: str, complain: Complain) -> Iterator[Entry]:
    """Yield the assignments of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_SIZE_MAX + 1)
    except OSError as error:
        raise ConfigError(f"Failed to read {path}: {error.strerror}") from error
    if len(data) > _SIZE_MAX:
        raise ConfigError(f"{path} is larger than {_SIZE_MAX >> 20} MiB, so no file of settings")
    yield from parse(data, path, complain)


def parse(data: bytes, path: str, complain: Complain) -> Iterator[Entry]:
    """Yield the assignments of a file's content."""
    section = ""
    for number, raw in _logical_lines(data.removeprefix(b"\xef\xbb\xbf")):
        try:
            line = raw.decode().strip(_BLANKS)
        except UnicodeDecodeError:
            complain(path, number, "the line is no UTF-8")
            continue
        if not line:
            continue
        if "\0" in line:
            complain(path, number, "the line holds a zero byte")
        elif line.startswith("["):
            if line.endswith("]"):
                section = line[1:-1]
            else:
                section = ""
                complain(path, number, f"the section {line} is not closed by ]")
        else:
            key, equals, value = line.partition("=")
            if not equals:
                complain(path, number, "there is no =")
            elif not section:
                complain(path, number, "the assignment stands in no section")
            else:
                yield Entry(
                    path=path,
                    line=number,
                    section=section,
                    key=key.strip(_BLANKS),
                    value=value.strip(_BLANKS),
                )


def _logical_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines with the number of their first; a backslash at the end joins the next.

    A comment between joined lines is passed over, as systemd does.
    """
    begun = 0
    parts: list[bytes] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        stripped = raw.lstrip(b" \t\r\v\f")
        if stripped.startswith((b"#", b";")):
            continue
        line = raw.rstrip(b"\r")
        begun = begun if parts else number
        backslashes = len(line) - len(line.rstrip(b"\\"))
        if backslashes % 2:
            parts.append(line[:-1])
            continue
        yield begun, b" ".join((*parts, line))
        parts = []
    if parts:
        yield begun, b" ".join(parts)
