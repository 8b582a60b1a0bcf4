"""What a `UsersSpec` comes to on a host: the range, the ownership, the maps of ids; pure."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel.chown_tree import BUSY_BASE
from machinectl_py.kernel.idmap import same_maps
from machinectl_py.plan.id_ranges import FOREIGN_BASE, MAPPED_ROOT, OVERFLOW_ID, SIZE
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from machinectl_py.config.spec import MachineSpec, UsersSpec
    from machinectl_py.kernel.idmap import IdMaps
    from machinectl_py.plan.facts import HostFacts

    # What is done, where `Ownership` of the spec is what is wished.
    RootOwnership = Literal["as-is", "chown", "map", "foreign"]

_HIGHEST = (1 << 32) - 1  # (uid_t) -1 is no id


class UsersPlan(Record):
    """The user namespace of a machine on a host."""

    source: Literal["fixed", "pick"]
    base: int  # "fixed": the host's id of 0 inside; else what is tried first, 0 for nothing
    count: int
    ownership: RootOwnership
    delegate: int


def plan_users(spec: MachineSpec, facts: HostFacts) -> UsersPlan | None:
    """Return the user namespace that a machine gets; None if it gets none.

    Raises:
        ConfigError: the range, or the ownership beside other settings, makes no sense.
        UnsupportedError: this host or the root's file system cannot do it.
    """
    users = spec.users
    if users.mode == "no":
        return None
    if not facts.root.namespaces:
        raise UnsupportedError("This kernel makes no user namespaces", "Try --private-users=no.")
    if users.mode == "managed":
        raise UnsupportedError(
            "Ranges of ids are not taken from systemd-nsresourced",
            "--private-users=pick takes one that nobody has.",
        )
    count = ids_of(users)
    base = users.base
    if users.mode == "root":
        base = _base_of_root(spec, facts)
    elif users.mode == "pick" and not base:
        base = facts.root.uid & ~(SIZE - 1)
    if users.mode == "fixed" and not (count > 0 and base + count <= _HIGHEST):
        raise ConfigError(f"There is no range of {count} ids from {base} on")
    return UsersPlan(
        source="pick" if users.mode == "pick" else "fixed",
        base=base,
        count=count,
        ownership=_ownership(spec, facts, base, count),
        delegate=users.delegate,
    )


def ids_of(users: UsersSpec) -> int:
    """Return how many ids a user namespace has from its base on."""
    return users.count if users.mode == "fixed" else SIZE


def _base_of_root(spec: MachineSpec, facts: HostFacts) -> int:
    uid, gid = facts.root.uid, facts.root.gid
    if uid & ~(SIZE - 1) != gid & ~(SIZE - 1):
        raise ConfigError(
            f"User and group of {spec.root}, {uid}:{gid}, are not of one range",
            "--private-users=pick takes a range of its own.",
        )
    return uid & ~(SIZE - 1)


def _ownership(spec: MachineSpec, facts: HostFacts, base: int, count: int) -> RootOwnership:
    wished = spec.users.ownership
    shifted = facts.root.uid & ~(SIZE - 1)
    if wished == "auto":
        if spec.users.mode == "fixed" and base == 0:
            return "as-is"
        if shifted in (0, FOREIGN_BASE) and not facts.root.unmappable:
            wished = "foreign" if shifted else "map"
        else:  # a tree that was given to a range before stays so, as with systemd-nspawn
            wished = "chown"
    if wished == "chown":
        return _check_chown(spec, facts, base, count)
    if wished == "off":
        return "as-is"
    if wished == "map" and base == 0 and spec.users.mode == "fixed":
        return "as-is"  # nothing to shift
    if facts.root.unmappable:
        raise UnsupportedError(
            f"The ids of {spec.root} cannot be mapped: {facts.root.unmappable}",
            "--private-users-ownership=chown changes the owners of the files instead.",
        )
    _check_mapped_root(spec, facts, foreign=wished == "foreign")
    return wished


def _check_mapped_root(spec: MachineSpec, facts: HostFacts, *, foreign: bool) -> None:
    """Refuse a root whose files have been given to a range: mapped once more they are nobody's."""
    needed = FOREIGN_BASE if foreign else 0
    if facts.root.uid & ~(SIZE - 1) != needed:
        raise ConfigError(
            f"The files of {spec.root} belong to the range of {facts.root.uid}, not to {needed}'s,"
            " and so cannot be mapped",
            "--private-users-ownership=chown gives them to the machine's range.",
        )


def _check_chown(
    spec: MachineSpec, facts: HostFacts, base: int, count: int
) -> Literal["chown", "as-is"]:
    if spec.users.mode != "managed" and (count != SIZE or base % SIZE):
        raise ConfigError(
            f"Owners can be changed to a range of {SIZE} ids that begins at a multiple of it,"
            f" not to {count} from {base} on"
        )
    if facts.in_user_namespace and facts.root.uid == OVERFLOW_ID:
        raise ConfigError(
            f"The files of {spec.root} belong to ids that this user namespace does not have"
        )
    own_range = spec.users.mode in ("fixed", "root") and facts.root.uid & ~(SIZE - 1) == base
    if not own_range and (spec.read_only or _is_read_only(facts)):
        raise ConfigError("The owners of files in a read-only root cannot be changed")
    if facts.root.uid & ~(SIZE - 1) != facts.root.gid & ~(SIZE - 1):
        raise ConfigError(
            f"User and group of {spec.root}, {facts.root.uid}:{facts.root.gid},"
            " are not of one range"
        )
    if base == BUSY_BASE:
        raise ConfigError(f"{base} marks trees whose owners are being changed")
    return "chown"


def _is_read_only(facts: HostFacts) -> bool:
    """Say whether the operating system of a disk image is on what cannot be written."""
    return bool(facts.disk and facts.disk.system and facts.disk.system.read_only)


def machine_maps(base: int, count: int, delegated: tuple[int, ...] = ()) -> IdMaps:
    """Return the maps of the machine's user namespace.

    Delegated ranges are the same inside, so that a range is that of one machine however deep
    it is nested, as systemd-nsresourced delegates them.
    """
    return same_maps((0, base, count), *delegated_rows(delegated))


def delegated_rows(delegated: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Return the rows of ranges for nested machines, which begin with these ids."""
    return tuple((first, first, SIZE) for first in delegated)


def root_maps(
    ownership: RootOwnership, base: int, count: int, delegated: tuple[int, ...] = ()
) -> IdMaps | None:
    """Return the maps of the root's mount; None if it has none.

    The host's root may write there, as `machinectl copy-to` does before it gives what it made
    to the machine's root: systemd-nspawn stores it as this id, which is nobody's inside.
    """
    rows = delegated_rows(delegated)
    if base and count <= MAPPED_ROOT:
        rows = ((MAPPED_ROOT, 0, 1), *rows)
    if ownership == "map":
        return same_maps((0, base, count), *rows)
    if ownership == "foreign":
        return same_maps((FOREIGN_BASE, base, min(count, SIZE)), *rows)
    return None
