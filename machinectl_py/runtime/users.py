"""The users of a machine, from its own passwd(5) and group(5)."""

from __future__ import annotations

from machinectl_py.errors import NotFoundError
from machinectl_py.record import Record
from machinectl_py.runtime.inspect_os import read_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState

_DEFAULT_SHELL = "/bin/sh"


class User(Record):
    """Who a command inside is run as; ids are those inside."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # the supplementary ones, as initgroups(3) finds them
    home: str
    shell: str


def find_user(state: MachineState, name: str) -> User:
    """Return a user of the machine by name or uid; root exists without a passwd, too.

    Raises:
        NotFoundError: the machine has no such user.
    """
    row = _find_row(read_inside(state, "etc/passwd"), name)
    if row is None:
        if name not in ("root", "0"):
            raise NotFoundError(f"Machine '{state.name}' has no user '{name}'")
        row = ["root", "", "0", "0", "", "/root", ""]
    groups = parse_groups(read_inside(state, "etc/group"), row[0])
    return User(
        name=row[0],
        uid=int(row[2]),
        gid=int(row[3]),
        groups=tuple(sorted({int(row[3]), *groups})),
        home=row[5] or "/",
        shell=row[6] or _DEFAULT_SHELL,
    )


def _find_row(passwd: str, name: str) -> list[str] | None:
    """Return the seven fields of a user; a name comes before a uid, as in chown(1)."""
    rows = [line.split(":") for line in passwd.splitlines()]
    rows = [row for row in rows if len(row) == 7 and _is_id(row[2]) and _is_id(row[3])]
    for field in (0, 2):
        for row in rows:
            if row[field] == name:
                return row
    return None


def parse_groups(group: str, member: str) -> tuple[int, ...]:
    """Return the ids of the groups that list this member."""
    rows = (line.split(":") for line in group.splitlines())
    return tuple(
        int(row[2])
        for row in rows
        if len(row) == 4 and _is_id(row[2]) and member in row[3].split(",")
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()
