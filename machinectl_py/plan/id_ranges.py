"""Ranges of 65536 ids for machines: which are free, and how one is held.

A range is held by the lock file that systemd-nspawn takes for it, so that no two machines get
the same, whoever of us starts them and however many at once. The first candidate is the one
that systemd-nspawn hashes from the machine's name too, so a machine gets the same range again.
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError, UnsupportedError
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.kernel.procfs import id_map
from machinectl_py.layout import ID_LOCK_DIR
from machinectl_py.plan.siphash import siphash24
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1 << 16
# Where systemd puts containers; https://systemd.io/UIDS-GIDS
FIRST = 0x00080000
LAST = 0x6FFF0000
FOREIGN_BASE = 0x7FFE0000  # what trees are owned by that no host's user owns; idem
MAPPED_ROOT = 0x7FFF0000  # what a mapped root stores the host's root as; idem
OVERFLOW_ID = 65534  # what stands for an id that is not mapped; user_namespaces(7)
# systemd-nspawn's key, for the same candidate.
_KEY = bytes.fromhex("e156e0f04af041af9641cf413394ff72")
_MOST_TRIES = 4096
_LAST_USER = 0xFFFE  # of a range: nobody, 65534
_SUBORDINATE = ("/etc/subuid", "/etc/subgid")  # subuid(5)


class HeldRange(Record):
    """A range that is ours until the descriptor is closed."""

    base: int
    lock: int


def lock_path(base: int) -> str:
    """Return the lock file of a range."""
    return f"{ID_LOCK_DIR}/{base}"


def pick_range(name: str, preferred: int, taken: tuple[int, ...] = ()) -> HeldRange:
    """Take a range that nobody has, the same for the same name where that is possible.

    Args:
        name: of the machine.
        preferred: the base to try first; 0 for none.
        taken: bases not to give.

    Raises:
        ConflictError: no free one was found.
        UnsupportedError: in the user namespace that we are in there is none.
    """
    reserved = _subordinate_ranges()
    for base in _candidates(name, preferred):
        if base in taken or _overlaps(base, reserved):
            continue
        lock = take_range(base)
        if lock is None:
            continue
        if not _has_users(base):
            return HeldRange(base=base, lock=lock)
        drop_lock(lock_path(base), lock)
    raise ConflictError(
        f"No free range of {SIZE} ids was found for machine '{name}'",
        f"{ID_LOCK_DIR} has those that machines hold; --private-users=UID chooses one.",
    )


def take_range(base: int) -> int | None:
    """Return the lock of a range, or None if it is held."""
    os.makedirs(ID_LOCK_DIR, mode=0o755, exist_ok=True)
    return take_lock(lock_path(base))


def release_range(base: int, lock: int) -> None:
    """Remove a range's lock file.

    Args:
        base: the range.
        lock: what the descriptor of the lock was in the process that took it: if it is that
            here, the lock goes with the file; else the file goes if nobody holds it.
    """
    path = lock_path(base)
    if _is_open_as(lock, path):
        drop_lock(path, lock)
    elif not is_locked(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def _is_open_as(fd: int, path: str) -> bool:
    try:
        ours, there = os.fstat(fd), os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _candidates(name: str, preferred: int) -> Iterator[int]:
    """Yield bases in the order in which they are tried."""
    mapped = _mapped_bases()
    if mapped is not None and not mapped:
        raise UnsupportedError(
            f"There is no range of {SIZE} ids for machines in this user namespace",
            "Boot the machine that this is with --private-users-delegate=1, or more.",
        )
    if FIRST <= preferred <= LAST and (mapped is None or preferred in mapped):
        yield preferred
    for number in range(_MOST_TRIES):
        data = name.encode() + (b"\0%d" % number if number else b"")
        drawn = siphash24(data, _KEY) & 0xFFFFFFFF
        if mapped is not None:
            yield mapped[drawn % len(mapped)]
        else:
            yield drawn % (LAST - FIRST) + FIRST & ~(SIZE - 1)


def _mapped_bases() -> tuple[int, ...] | None:
    """Return the bases that exist in our own user namespace; None if all do."""
    bases: list[int] = []
    for inside, _, count in id_map(os.getpid()):
        if inside <= FIRST and inside + count >= LAST + SIZE:
            return None
        begin = max(inside, FIRST) + SIZE - 1 & ~(SIZE - 1)
        end = min(inside + count, LAST + SIZE)
        bases += range(begin, end - SIZE + 1, SIZE)
    return tuple(bases)


def _subordinate_ranges() -> tuple[tuple[int, int], ...]:
    """Return the ranges that users may map, as (first, count)."""
    found = []
    for path in _SUBORDINATE:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                rows = [line.strip().split(":") for line in file]
        except FileNotFoundError:
            continue
        found += [
            (int(row[1]), int(row[2]))
            for row in rows
            if len(row) == 3 and row[1].isdigit() and row[2].isdigit()
        ]
    return tuple(found)


def _overlaps(base: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first < base + SIZE and base < first + count for first, count in ranges)


def _has_users(base: int) -> bool:
    """Say whether the host knows users or groups of a range, by its first and its last one."""
    import grp
    import pwd

    for number in (base, base + _LAST_USER):
        for look_up in (pwd.getpwuid, grp.getgrgid):
            try:
                look_up(number)
            except KeyError:
                continue
            return True
    return False
