"""What a crash left in the store: found, and mended where that loses nothing."""

from __future__ import annotations

import os

from machinectl_py.errors import PymachineError
from machinectl_py.images import aside, store, sweep
from machinectl_py.images.care import mark
from machinectl_py.images.held import ASIDE
from machinectl_py.images.machines import now
from machinectl_py.images.records import (
    StoreLock,
    find_machine,
    machine_names,
    remove_record,
)
from machinectl_py.kernel.locks import drop_lock, is_locked, take_lock
from machinectl_py.layout import (
    LAYERS_DIR,
    RECORDS_DIR,
    REMOVED_DIR,
    layer_path,
    lock_path,
    record_path,
)
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from machinectl_py.images.records import Machine


_STARTING = 60_000_000  # microseconds in which an ephemeral machine has surely got its lock


class Finding(Record):
    """Something that is not as it should be."""

    what: str
    path: str
    mended: bool  # or, where nothing is to be changed: it could be


def check_store(*, mend: bool) -> tuple[Finding, ...]:
    """Look for what a crash left.

    Args:
        mend: remove it; otherwise only tell of it.

    Raises:
        DeniedError: the caller is not root.
        OSError: with the path.
    """
    with StoreLock():
        machines, found = _read_all()
        whole = not found
        for machine in machines:
            found += _stands(machine)
        found += _unfinished_records(mend)
        machines = _drop_ephemeral(machines, found, mend)
        found += _unmarked(machines, mend)
        # With a damaged record nobody knows what is unused.
        found += _unused_layers(machines) if whole else ()
        found += _put_aside()
        found += _images_aside(mend)
        found += _free_locks(mend)
        if mend and whole:
            sweep.put_aside()
    if mend:
        sweep.remove_aside()
    return tuple(found)


def _read_all() -> tuple[list[Machine], list[Finding]]:
    machines, found = [], []
    for name in machine_names():
        try:
            machine = find_machine(name)
        except PymachineError as error:
            path = record_path(name)
            what = error.message.removeprefix(f"{path} ")
            found.append(Finding(what=what, path=path, mended=False))
        else:
            if machine is not None:
                machines.append(machine)
    return machines, found


def _stands(machine: Machine) -> list[Finding]:
    """Return what a machine stands on that is not there."""
    found = [
        Finding(what=f"missing, of machine '{machine.name}'", path=layer_path(layer), mended=False)
        for layer in sorted(machine.references())
        if not os.path.isdir(layer_path(layer))
    ]
    if not os.path.exists(machine.base):
        what = f"missing, the image of machine '{machine.name}'"
        found.append(Finding(what=what, path=machine.base, mended=False))
    return found


def _unfinished_records(mend: bool) -> Iterator[Finding]:
    for entry in os.listdir(RECORDS_DIR):
        if entry.startswith("."):  # whoever writes one holds the lock that we hold
            path = f"{RECORDS_DIR}/{entry}"
            if mend:
                os.unlink(path)
            yield Finding(what="half-written record", path=path, mended=True)


def _drop_ephemeral(machines: list[Machine], found: list[Finding], mend: bool) -> list[Machine]:
    """Return the machines but those that should have gone with their end."""
    kept = []
    for machine in machines:
        starting = now() - machine.created < _STARTING
        if not machine.ephemeral or starting or is_locked(lock_path(machine.name)):
            kept.append(machine)
            continue
        path = record_path(machine.name)
        found.append(Finding(what="ephemeral machine that has ended", path=path, mended=True))
        if mend:
            remove_record(machine.name)
    return kept


def _unmarked(machines: list[Machine], mend: bool) -> Iterator[Finding]:
    for base in sorted({machine.base for machine in machines if machine.marked}):
        if os.path.exists(base) and not store.is_read_only(base):
            if mend:
                mark(base)
            if not mend or store.is_read_only(base):  # else its file system has no such mark
                yield Finding(what="in use, and not marked read-only", path=base, mended=True)


def _unused_layers(machines: list[Machine]) -> Iterator[Finding]:
    unused = set(os.listdir(LAYERS_DIR)).difference(*(m.references() for m in machines))
    for layer in sorted(unused):
        yield Finding(what="layer that no machine stands on", path=layer_path(layer), mended=True)


def _put_aside() -> Iterator[Finding]:
    for entry in sorted(os.listdir(REMOVED_DIR)):
        path = f"{REMOVED_DIR}/{entry}"
        if not sweep.is_being_made(path):
            yield Finding(what="put aside, and not yet removed", path=path, mended=True)


def _images_aside(mend: bool) -> Iterator[Finding]:
    for path in aside.stale():
        yield Finding(what="image that was being made", path=path, mended=True)
    if mend:
        aside.remove_stale()  # holding its lock, as somebody may begin anew
    for place in store.SEARCH_PATH:
        try:
            entries = sorted(os.listdir(place))
        except OSError:
            continue
        for entry in entries:
            path = f"{place}/{entry}"
            if entry.startswith(ASIDE) and not sweep.is_being_made(path):
                if mend:
                    sweep.remove_any(path)
                yield Finding(what="image that was being removed", path=path, mended=True)


def _free_locks(mend: bool) -> Iterator[Finding]:
    for path in aside.free_locks():
        if mend and (lock := take_lock(path)) is not None:
            drop_lock(path, lock)
        yield Finding(what="lock that nobody holds", path=path, mended=True)
