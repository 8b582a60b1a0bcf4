"""Users of the host who exist inside too: their ids inside, their records, the rows of the map.

All pure but `probe_users`. The records are those of https://systemd.io/USER_RECORD, as
nss-systemd(8) inside reads them from /run/host/userdb.
"""

from __future__ import annotations

import os

from machinectl_py.codec import encode
from machinectl_py.errors import ConfigError, ConflictError, NotFoundError, UnsupportedError
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts

# The ids that systemd keeps for users mapped from a host; https://systemd.io/UIDS-GIDS
MAP_UID_MIN, MAP_UID_MAX = 60514, 60577
HOMES = "/run/host/home"
_NOBODY = 65534
_SERVICE = "io.systemd.NSpawn"
_LARGEST = 1 << 24  # bytes of a passwd(5) or group(5) that are looked at


class HostUser(Record):
    """A user as the host's databases have it."""

    name: str
    uid: int
    gid: int
    group: str  # the name of the group `gid`; "" if it has none
    home: str
    shell: str
    hashed_password: str = ""  # crypt(5); "" if there is none that opens anything


class UserFacts(Record):
    """What of the host's and the machine's users a plan depends on."""

    found: tuple[HostUser, ...] = ()
    taken_names: tuple[str, ...] = ()  # of users and groups in the machine's own files
    taken_ids: tuple[int, ...] = ()  # of them, in the range for users mapped from a host


class BoundUser(Record):
    """A user of the host, with its uid and gid inside."""

    host: HostUser
    uid: int


def probe_users(names: tuple[str, ...], root: str) -> UserFacts:
    """Look users up on the host, and what names and ids the machine has given.

    Args:
        names: of the users to be bound; who is not found is left out.
        root: the machine's root directory; of a disk image nothing is seen before it is mounted.
    """
    import grp
    import pwd

    passwords = _passwords() if names else {}
    found = []
    for name in dict.fromkeys(names):
        try:
            row = pwd.getpwnam(name)
        except KeyError:
            continue
        try:
            group = grp.getgrgid(row.pw_gid).gr_name
        except KeyError:
            group = ""
        found.append(
            HostUser(
                name=row.pw_name,
                uid=row.pw_uid,
                gid=row.pw_gid,
                group=group,
                home=row.pw_dir,
                shell=row.pw_shell,
                hashed_password=passwords.get(row.pw_name, ""),
            )
        )
    rows = _rows(root, "/etc/passwd") + _rows(root, "/etc/group") if names else []
    ids = {int(row[2]) for row in rows if len(row) > 2 and row[2].isdigit()}
    return UserFacts(
        found=tuple(found),
        taken_names=tuple(sorted({row[0] for row in rows})),
        taken_ids=tuple(sorted(number for number in ids if MAP_UID_MIN <= number <= MAP_UID_MAX)),
    )


def bound_users(spec: MachineSpec, facts: HostFacts) -> tuple[BoundUser, ...]:
    """Return the users that are bound, each with an id that the machine has not given.

    Raises:
        ConfigError: there is no user namespace, or it is root, nobody or of the machine's range.
        NotFoundError: the host has no such user.
        ConflictError: the machine has a user or group of this name, or no id is left.
        UnsupportedError: the user shares its group with others.
    """
    if not spec.bind_users.names:
        return ()
    if spec.users.mode == "no":
        raise ConfigError(
            "Users of the host can be bound only into a machine with a user namespace",
            "--private-users=pick gives it one.",
        )
    known = {user.name: user for user in facts.users.found}
    free = iter(
        number
        for number in range(MAP_UID_MIN, MAP_UID_MAX + 1)
        if number not in facts.users.taken_ids and number < spec.users.count
    )
    found = []
    for name in dict.fromkeys(spec.bind_users.names):
        if name not in known:
            raise NotFoundError(f"There is no user '{name}' on this host to be bound")
        _check(known[name], spec, facts)
        uid = next(free, -1)
        if uid < 0:
            raise ConflictError(
                f"No id between {MAP_UID_MIN} and {MAP_UID_MAX} is left in the machine for '{name}'"
            )
        found.append(BoundUser(host=known[name], uid=uid))
    return tuple(found)


def _check(user: HostUser, spec: MachineSpec, facts: HostFacts) -> None:
    if user.uid in (0, _NOBODY) or user.name in ("root", "nobody"):
        raise ConfigError(f"The user '{user.name}' cannot be bound: every machine has its own")
    if user.name != user.group:
        raise UnsupportedError(
            f"The user '{user.name}' cannot be bound: its group '{user.group}' is not its own"
        )
    if user.name in facts.users.taken_names:
        raise ConflictError(f"The machine has a user or group '{user.name}' already")
    if spec.users.mode == "fixed":
        check_outside(user, spec.users.base, spec.users.count)


def check_outside(user: HostUser, base: int, count: int) -> None:
    """Refuse a user of the host whose ids the machine's range holds already.

    Raises:
        ConfigError: it does.
    """
    for number in (user.uid, user.gid):
        if base <= number < base + count:
            raise ConfigError(
                f"The user '{user.name}' cannot be bound: id {number} is in the machine's range"
            )


def map_rows(
    base: int, count: int, holes: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int, int], ...]:
    """Return the rows of an id map with holes; user_namespaces(7).

    Args:
        base: the host's id of 0 inside.
        count: how many ids there are inside.
        holes: pairs of an id inside and the host's that it is, by rising id inside.

    Returns:
        Rows of an id inside, the host's, and how many in a row.
    """
    rows = []
    begin = 0
    for inside, outside in holes:
        if inside > begin:
            rows.append((begin, base + begin, inside - begin))
        rows.append((inside, outside, 1))
        begin = inside + 1
    if count > begin:
        rows.append((begin, base + begin, count - begin))
    return tuple(rows)


def uid_holes(users: tuple[BoundUser, ...]) -> tuple[tuple[int, int], ...]:
    """Return the holes in the map of uids, for `map_rows`."""
    return tuple((user.uid, user.host.uid) for user in users)


def gid_holes(users: tuple[BoundUser, ...]) -> tuple[tuple[int, int], ...]:
    """Return the holes in the map of gids, for `map_rows`; a gid inside is the uid."""
    return tuple((user.uid, user.host.gid) for user in users)


def record_files(
    user: BoundUser, shell: str, groups: tuple[str, ...]
) -> tuple[tuple[str, str, int], ...]:
    """Return the files of a user's records: name, JSON text, mode.

    Args:
        user: whose.
        shell: "" leaves it to the machine, "host" is the host's, else a path.
        groups: of the machine, that it is a member of.
    """
    name, home = user.host.name, f"{HOMES}/{user.host.name}"
    record: dict[str, object] = {"userName": name, "uid": user.uid, "gid": user.uid}
    record |= {"homeDirectory": home, "service": _SERVICE}
    if shell:
        record["shell"] = user.host.shell if shell == "host" else shell
    if groups:
        record["memberOf"] = list(groups)
    group = {"groupName": name, "gid": user.uid, "service": _SERVICE}
    files = [(f"{name}.group", encode(group), 0o644)]
    if user.host.hashed_password:
        secret = {"privileged": {"hashedPassword": [user.host.hashed_password]}}
        files.append((f"{name}.user-privileged", encode(secret), 0o600))
    files.append((f"{name}.user", encode(record), 0o644))
    # What nss-systemd(8) reads memberships from.
    files += [(f"{name}:{member}.membership", "{}", 0o644) for member in groups]
    return tuple(files)


def _passwords() -> dict[str, str]:
    """Return the hashed passwords of the host by user, without those that are locked."""
    found = {}
    try:
        with open("/etc/shadow", encoding="utf-8", errors="replace") as file:
            rows = [line.split(":") for line in file]
    except OSError:
        return {}
    for row in rows:
        if len(row) > 1 and row[1] and row[1][0] not in "!*":
            found[row[0]] = row[1]
    return found


def _rows(root: str, path: str) -> list[list[str]]:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            text = file.read(_LARGEST).decode(errors="replace")
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines()]
