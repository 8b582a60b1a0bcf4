"""Users as passwd(5) and group(5) have them; pure, but for asking getent(1)."""

from __future__ import annotations

import os

from machinectl_py.record import Record

DEFAULT_SHELL = "/bin/sh"
_GETENT = ("/usr/bin/getent", "/bin/getent")


class User(Record):
    """Who a command inside is run as; ids are those inside."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # the supplementary ones, as initgroups(3) finds them
    home: str
    shell: str


ROOT = User(name="root", uid=0, gid=0, groups=(0,), home="/root", shell=DEFAULT_SHELL)


def parse_user(passwd: str, group: str, name: str) -> User | None:
    """Return the user of this name or uid; a name comes before a uid, as in chown(1).

    Args:
        passwd: the text of passwd(5).
        group: the text of group(5).
        name: name or uid.
    """
    row = _find_row(passwd, name)
    if row is None:
        return None
    gid = int(row[3])
    return User(
        name=row[0],
        uid=int(row[2]),
        gid=gid,
        groups=tuple(sorted({gid, *parse_groups(group, row[0])})),
        home=row[5] or "/",
        shell=row[6] or DEFAULT_SHELL,
    )


def parse_groups(group: str, member: str) -> tuple[int, ...]:
    """Return the ids of the groups that list this member."""
    rows = (line.split(":") for line in group.splitlines())
    return tuple(
        int(row[2])
        for row in rows
        if len(row) == 4 and _is_id(row[2]) and member in row[3].split(",")
    )


def ask_getent(name: str) -> User | None:
    """Return a user of name or uid as the root's own getent(1) finds it; None if it does not.

    Knows what other modules of nsswitch.conf(5) know, such as the users that systemd bound.
    """
    line = _getent("passwd", name).partition("\n")[0]
    row = _find_row(line, name)
    if row is None:
        return None
    words = _getent("initgroups", row[0]).split()[1:]
    groups = {int(row[3]), *(int(word) for word in words if _is_id(word))}
    found = parse_user(line, "", name)
    return found and found.replace(groups=tuple(sorted(groups)))


def _getent(database: str, key: str) -> str:
    """Return what getent(1) prints; "" if it prints nothing or there is none."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        for program in _GETENT:
            try:
                os.execve(program, ["getent", "--", database, key], {})
            except OSError:
                continue
        os._exit(127)
    os.close(write)
    with open(read, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def _find_row(passwd: str, name: str) -> list[str] | None:
    rows = [line.split(":") for line in passwd.splitlines()]
    rows = [row for row in rows if len(row) == 7 and _is_id(row[2]) and _is_id(row[3])]
    for field in (0, 2):
        for row in rows:
            if row[field] == name:
                return row
    return None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()
