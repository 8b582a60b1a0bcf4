"""Snapshots of machines: taken, gone back to, thrown away; docs/design/store.md."""

from __future__ import annotations

import time

from machinectl_py.errors import ConfigError, ConflictError
from machinectl_py.images import drivers
from machinectl_py.images.held import Stopped
from machinectl_py.images.machines import (
    Change,
    adopt,
    check_depth,
    give_identity,
    now,
    require_machine,
)
from machinectl_py.images.records import Machine, Snapshot, find_machine, write_machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_TAG_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+")
_TAG_LENGTH = 64


def check_tag(tag: str) -> None:
    """Refuse what is no tag of a snapshot.

    Raises:
        ConfigError: it is not.
    """
    if not (0 < len(tag) <= _TAG_LENGTH and _TAG_CHARACTERS.issuperset(tag)) or tag[0] in "-.":
        raise ConfigError(
            "A snapshot's tag is letters, digits and any of -_.:+, at most 64, not beginning with"
            " a dash or dot"
        )


def new_tag(machine: Machine) -> str:
    """Return a tag for now: "2026-11-25T09:12:55Z"; the next of that second ends in ".2"."""
    second = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    last = 0  # also if the first are gone: what a tag means does not change
    for snapshot in machine.snapshots:
        tag, _, number = snapshot.tag.partition(f"{second}.")
        if snapshot.tag == second:
            last = max(last, 1)
        elif not tag and number.isascii() and number.isdigit():
            last = max(last, int(number))
    return f"{second}.{last + 1}" if last else second


def take(name: str, tag: str = "") -> Snapshot:
    """Take a snapshot of a machine that does not run.

    Args:
        name: of the machine, or of an image that is used in place: from then on a machine of
            that name stands on it.
        tag: "" takes one that tells the time.

    Raises:
        NotFoundError: there is no such machine.
        ConflictError: it runs, or has a snapshot of this tag.
        PymachineError: the snapshot cannot be made; nothing is left of the try.
    """
    if tag:
        check_tag(tag)
    adopt(name)
    with Stopped(name):
        machine = require_machine(name)
        refuse_tag(machine, tag)
        check_depth(machine)
        with Change():
            changed, layers = drivers.driver_of(machine.driver).freeze(machine)
            return _add(changed, layers, tag, running=False)


def take_running(name: str, tag: str, frozen: AbstractContextManager[object]) -> Snapshot:
    """Take a snapshot of a machine that runs; it stands still while `frozen` is entered.

    Where its root is an overlay, what it has written is copied, as it cannot be moved: that takes
    the longer the more it is.

    Raises:
        NotFoundError: there is no such machine.
        ConflictError: it has a snapshot of this tag, or was put back meanwhile.
        PymachineError: the snapshot cannot be made; nothing is left of the try.
    """
    if tag:
        check_tag(tag)
    machine = find_machine(name)
    if machine is None:
        raise ConflictError(
            f"Machine '{name}' runs on its image in place, of which no snapshot can be taken now",
            f"After 'pymachine poweroff {name}' one can.",
        )
    refuse_tag(machine, tag)
    if machine.driver == "overlay":
        return _copy(machine, tag, frozen)
    with frozen, Change():
        machine = require_machine(name)
        _, layers = drivers.driver_of(machine.driver).freeze(machine)
        return _add(machine, layers, tag, running=True)


def _copy(machine: Machine, tag: str, frozen: AbstractContextManager[object]) -> Snapshot:
    from machinectl_py.images.copying import Copy

    if drivers.is_unwritten(machine):
        with Change():
            machine = require_machine(machine.name)
            layers = machine.layers
            return _add(machine, layers, tag, running=True)
    with Copy() as copy:
        with frozen:
            copy.take(drivers.upper_of(machine.own), "upper")
        copy.make("work")
        with Change():
            later = require_machine(machine.name)
            if later.own != machine.own:
                raise ConflictError(f"Machine '{machine.name}' was put back meanwhile")
            layers = (copy.commit(), *later.layers)
            return _add(later, layers, tag, running=True)


def refuse_tag(machine: Machine, tag: str) -> None:
    """Refuse a tag that a snapshot of the machine has.

    Raises:
        ConflictError: one has.
    """
    if any(snapshot.tag == tag for snapshot in machine.snapshots):
        raise ConflictError(f"Machine '{machine.name}' has a snapshot '{tag}' already")


def _add(machine: Machine, layers: tuple[str, ...], tag: str, *, running: bool) -> Snapshot:
    """Commit a machine with one snapshot more; the store's lock is held."""
    refuse_tag(machine, tag)
    made = Snapshot(
        tag=tag or new_tag(machine),
        created=now(),
        layers=layers,
        automatic=not tag,
        running=running,
    )
    changed = machine.replace(snapshots=(*machine.snapshots, made))
    _hold_limit(changed)
    write_machine(changed)
    return made


def _hold_limit(machine: Machine) -> None:
    if machine.limit:
        from machinectl_py.images.limits import apply_limit

        apply_limit(machine)


def roll_back(name: str, tag: str, *, keep: str = "") -> None:
    """Put a machine, which does not run, back to a snapshot; what it was since is thrown away.

    Args:
        name: of the machine.
        tag: of the snapshot.
        keep: take a snapshot of this tag first.

    Raises:
        NotFoundError: there is no such machine or snapshot.
        ConflictError: it runs, or has a snapshot of the tag `keep`.
        PymachineError: it cannot be done; the machine is as before.
    """
    with Stopped(name):
        machine = require_machine(name)
        _put_back(machine, machine.snapshot(tag).layers, keep, identity="")


def reset(name: str, *, keep: str = "") -> None:
    """Put a machine back to the image that it was made of; its snapshots stay.

    Raises:
        PymachineError: as `roll_back`.
    """
    with Stopped(name):
        machine = require_machine(name)
        _put_back(machine, machine.origin, keep, identity=machine.machine_id)


def _put_back(machine: Machine, layers: tuple[str, ...], keep: str, *, identity: str) -> None:
    if keep:
        check_tag(keep)
        refuse_tag(machine, keep)
    driver = drivers.driver_of(machine.driver)
    with Change():
        snapshots = machine.snapshots
        if keep:
            _, kept = driver.freeze(machine)
            snapshots = (*snapshots, Snapshot(tag=keep, created=now(), layers=kept))
        changed = machine.replace(
            own=driver.fill(machine.base, layers),
            layers=layers if machine.driver == "overlay" else (),
            snapshots=snapshots,
        )
        if identity:
            give_identity(changed, identity)
        _hold_limit(changed)
        write_machine(changed)


def forget(name: str, tag: str) -> None:
    """Throw a snapshot away.

    Raises:
        NotFoundError: there is no such machine or snapshot.
    """
    with Change():
        machine = require_machine(name)
        gone = machine.snapshot(tag)
        left = tuple(snapshot for snapshot in machine.snapshots if snapshot != gone)
        write_machine(machine.replace(snapshots=left))


def keep_last(name: str, count: int) -> tuple[str, ...]:
    """Throw away all but the last `count` snapshots whose tags nobody gave; return their tags.

    Raises:
        NotFoundError: there is no such machine.
    """
    with Change():
        machine = require_machine(name)
        automatic = [snapshot for snapshot in machine.snapshots if snapshot.automatic]
        gone = automatic[: max(len(automatic) - count, 0)]
        if gone:
            left = tuple(snapshot for snapshot in machine.snapshots if snapshot not in gone)
            write_machine(machine.replace(snapshots=left))
    return tuple(snapshot.tag for snapshot in gone)
