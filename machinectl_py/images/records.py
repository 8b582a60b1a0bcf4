"""What machines are made of: a record for each, the one truth about the store; store.md.

A record is written whole and renamed into place, so each change of a machine, with all its
snapshots, is one rename(2). Whoever changes records holds the store's lock.
"""

from __future__ import annotations

import fcntl
import os

from machinectl_py.codec import decode, encode
from machinectl_py.errors import ConflictError, DeniedError, NotFoundError, PymachineError
from machinectl_py.images import store
from machinectl_py.layout import (
    LAYERS_DIR,
    RECORDS_DIR,
    REMOVED_DIR,
    STORE_DIR,
    layer_path,
    record_path,
)
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Self

    DriverName = Literal["overlay", "btrfs", "reflink"]

VERSION = 1
_SUFFIX = ".json"


class Snapshot(Record):
    """What a machine was at a moment."""

    tag: str
    created: int  # CLOCK_REALTIME, microseconds
    layers: tuple[str, ...]  # as `Machine.layers`
    running: bool = False  # taken while it ran
    automatic: bool = False  # nobody gave it the tag: `--keep` counts it


class Machine(Record):
    """What a machine is made of.

    With the driver "overlay", `layers` and `own` are directories over one another on `base`; with
    the others `own` alone is the whole root, and so is each snapshot's single layer. Without
    layers, a snapshot or the origin is `base` itself.
    """

    driver: DriverName
    image: str  # the name of what it was made from, for people
    base: str  # absolute path of a directory or a `.raw` file: an image
    own: str  # the layer that it writes to
    layers: tuple[str, ...] = ()  # below `own`, the topmost first
    origin: tuple[str, ...] = ()  # the layers that `reset` goes back to
    snapshots: tuple[Snapshot, ...] = ()  # in the order of their making
    created: int = 0  # CLOCK_REALTIME, microseconds
    machine_id: str = ""  # "" where the image has none to be told apart by
    marked: bool = False  # the image was marked read-only for it and its like
    read_only: bool = False
    limit: int = 0  # bytes that it may take on the disk; 0: as many as there are
    ephemeral: bool = False  # goes when it stops running
    name: str = ""  # of the file; not written
    version: int = VERSION

    def references(self) -> frozenset[str]:
        """Return the layers that it stands on."""
        kept = {layer for snapshot in self.snapshots for layer in snapshot.layers}
        return frozenset({self.own, *self.layers, *self.origin, *kept})

    def snapshot(self, tag: str) -> Snapshot:
        """Return the snapshot of this tag.

        Raises:
            NotFoundError: there is none.
        """
        for snapshot in self.snapshots:
            if snapshot.tag == tag:
                return snapshot
        known = ", ".join(snapshot.tag for snapshot in self.snapshots)
        raise NotFoundError(
            f"Machine '{self.name}' has no snapshot '{tag}'",
            f"Its snapshots: {known}." if known else f"'pymachine snapshot {self.name}' takes one.",
        )


class StoreLock:
    """The lock of the store: held for a moment by who changes it, or looks for what is unused."""

    def __enter__(self) -> Self:
        """Wait for it; the store's directories are made where they are missing.

        Raises:
            DeniedError: the caller is not root.
            OSError: the store cannot be made.
        """
        if os.geteuid():
            raise DeniedError("Only root may change machines and images", "Try again with sudo.")
        # Nobody else may enter, who could execute what is setuid in a machine.
        os.makedirs(os.path.dirname(STORE_DIR), 0o755, exist_ok=True)
        for place in (STORE_DIR, RECORDS_DIR, LAYERS_DIR, REMOVED_DIR):
            if not os.path.isdir(place):
                os.makedirs(place, 0o700, exist_ok=True)
        self._fd = os.open(STORE_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_error: object) -> None:
        """Let it go."""
        os.close(self._fd)


def find_machine(name: str) -> Machine | None:
    """Return the record of a machine; None if there is none.

    Raises:
        DeniedError: the caller is not root.
        PymachineError: it is damaged.
    """
    path = record_path(name)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise DeniedError(f"Only root may see what '{name}' is made of") from error
    try:
        machine = Machine.from_data(decode(text))
    except (ValueError, TypeError, AttributeError) as error:
        raise PymachineError(
            f"{path} is damaged: {error}", "'pymachine fsck' tells more."
        ) from error
    if machine.version > VERSION:
        raise PymachineError(f"{path} is of a newer pymachine, of version {machine.version}")
    return machine.replace(name=name)


def machine_names() -> tuple[str, ...]:
    """Return the names of the machines that have a record, sorted; none to who is not root."""
    try:
        entries = os.listdir(RECORDS_DIR)
    except (FileNotFoundError, PermissionError):
        return ()
    names = (e.removesuffix(_SUFFIX) for e in entries if e.endswith(_SUFFIX) and e[0] != ".")
    return tuple(sorted(names))


def all_machines() -> tuple[Machine, ...]:
    """Return all records, by name.

    Raises:
        PymachineError: one is damaged: what it stands on is not known.
    """
    found = (find_machine(name) for name in machine_names())
    return tuple(machine for machine in found if machine is not None)


def users_of(base: str) -> tuple[Machine, ...]:
    """Return the machines that stand on an image, by name."""
    return tuple(machine for machine in all_machines() if machine.base == base)


def refuse_existing(name: str, *, but: str = "") -> None:
    """Refuse a name that a machine or an image has already.

    Args:
        name: the name.
        but: an image may have it if it is this: the machine that is made of it.

    Raises:
        ConflictError: one has.
    """
    if find_machine(name) is not None:
        raise ConflictError(
            f"Machine '{name}' exists already", f"'pymachine boot {name}' starts it."
        )
    if name == but:
        return
    try:
        path = store.find_root(name)
    except NotFoundError:
        return
    raise ConflictError(
        f"There is an image of the name '{name}' already: {path}", "Choose another name."
    )


def write_machine(machine: Machine) -> None:
    """Write a record, in the place of an earlier one: the commit of what was made aside.

    Raises:
        OSError: with the path; the earlier one stays.
    """
    data = machine.to_data()
    del data["name"]
    aside = f"{RECORDS_DIR}/.{machine.name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(aside, flags, 0o600), "wb") as file:
            file.write(encode(data).encode())
            file.flush()
            os.fsync(file.fileno())
        # File systems with a journal keep the order of names: what is made for this record is
        # there if the record is, and what is removed later is there if it is not.
        os.rename(aside, record_path(machine.name))
    except OSError:
        if os.path.lexists(aside):
            os.unlink(aside)
        raise


def remove_record(name: str) -> None:
    """Remove a record: the machine is no more.

    Raises:
        OSError: with the path.
    """
    os.unlink(record_path(name))


def rename_record(name: str, new: str) -> None:
    """Give a machine another name.

    Raises:
        OSError: with the paths.
    """
    os.rename(record_path(name), record_path(new))


def sync_directory(path: str) -> None:
    """Write to the disk what was named or renamed in a directory; fsync(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def new_layer() -> str:
    """Return an identifier for a layer, and make its directory.

    Raises:
        OSError: with the path.
    """
    identifier = os.urandom(8).hex()
    os.mkdir(layer_path(identifier), 0o700)
    return identifier
