"""Making machines of images and of machines, and putting them away; docs/design/store.md."""

from __future__ import annotations

import os
import time

from machinectl_py.errors import ConflictError, NotFoundError, PymachineError
from machinectl_py.images import drivers, store, sweep
from machinectl_py.images.care import mark, unmark
from machinectl_py.images.held import ImageLock, Stopped
from machinectl_py.images.records import (
    Machine,
    StoreLock,
    find_machine,
    refuse_existing,
    remove_record,
    users_of,
    write_machine,
)
from machinectl_py.images.settings_files import copy_settings, remove_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# Of the 500 that the kernel takes (OVL_MAX_STACK), leaving some to the image and to what is made
# of the machine.
MAX_LAYERS = 490


class Change:
    """A change of the store: what it made and did not come to commit is removed."""

    def __init__(self) -> None:
        """Wait for `with`."""
        self._lock = StoreLock()

    def __enter__(self) -> Self:
        """Take the store's lock."""
        self._lock.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        """Put what nobody names out of sight, and remove it without the lock."""
        try:
            sweep.put_aside()
        except (OSError, PymachineError):
            if error is None:
                raise
        finally:
            self._lock.__exit__()
        try:
            sweep.remove_aside()
        except OSError:  # it is out of sight, and goes with the next change or by `fsck`
            pass
        if isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            raise PymachineError(
                f"The store cannot be changed: {error.strerror or error}{where}"
            ) from error


def create(source: str, name: str, *, ephemeral: bool = False) -> Machine:
    """Make the machine NAME of an image, or of what a machine is now.

    Raises:
        ConfigError: a name is not valid.
        NotFoundError: there is no such image.
        ConflictError: NAME exists, or the source runs.
        PymachineError: it cannot be made; nothing is left of the try.
    """
    return _make(source, name, ephemeral=ephemeral, twin=False)


def clone(source: str, name: str, *, read_only: bool = False) -> Machine:
    """Make the machine NAME like the machine SOURCE, of the same image.

    One that is read-only is started with a root that nothing is written to.

    Raises:
        PymachineError: as `create`.
    """
    return _make(source, name, ephemeral=False, twin=True, read_only=read_only)


def _make(
    source: str, name: str, *, ephemeral: bool, twin: bool, read_only: bool = False
) -> Machine:
    source, _, tag = source.partition("@")
    store.check_name(source)
    store.check_name(name)
    with Stopped(source, name):
        refuse_existing(name, but=source)
        machine = find_machine(source)
        if machine is None:
            return _of_image(source, name, ephemeral=ephemeral, read_only=read_only)
        if source == name:
            refuse_existing(name)
        with Change():
            made = _of_machine(machine, tag, name, twin=twin)
            made = made.replace(ephemeral=ephemeral, read_only=read_only)
            made = made.replace(machine_id=give_identity(made, new_identity()))
            write_machine(made)
            if not ephemeral:
                copy_settings(source, name, made.base)
            return made


def _of_image(source: str, name: str, *, ephemeral: bool, read_only: bool) -> Machine:
    base = store.find_root(source)
    with ImageLock(base, shared=True), Change():
        driver, own = drivers.fill_new(base)
        made = Machine(
            name=name,
            driver=driver,
            image=source,
            base=base,
            own=own,
            created=now(),
            marked=_is_to_be_marked(base),
            ephemeral=ephemeral,
            read_only=read_only,
        )
        if name != source:  # else it is the one that was used in place until now
            made = made.replace(machine_id=give_identity(made, new_identity()))
        write_machine(made)
        if made.marked:  # after it: a mark that no record tells of would stay
            mark(base)
        if not ephemeral:  # which goes by those of its image
            copy_settings(source, name, base)
        return made


def _is_to_be_marked(base: str) -> bool:
    """Say whether an image is marked read-only for the sake of its machines alone."""
    return not store.is_read_only(base) or any(machine.marked for machine in users_of(base))


def _of_machine(machine: Machine, tag: str, name: str, *, twin: bool) -> Machine:
    """Return a machine that begins as another is now, or was; the other is committed first."""
    driver = drivers.driver_of(machine.driver)
    if tag:
        frozen = machine.snapshot(tag).layers
    else:
        check_depth(machine)
        changed, frozen = driver.freeze(machine)
        if changed != machine:
            write_machine(changed)
    return Machine(
        name=name,
        driver=machine.driver,
        image=machine.image if twin else machine.name,
        base=machine.base,
        own=driver.fill(machine.base, frozen),
        layers=frozen if machine.driver == "overlay" else (),
        origin=machine.origin if twin else frozen,
        created=now(),
        marked=machine.marked,
    )


def check_depth(machine: Machine) -> None:
    """Refuse what would put more layers over one another than the kernel mounts.

    Raises:
        ConflictError: there are as many already.
    """
    if len(machine.layers) >= MAX_LAYERS:
        raise ConflictError(
            f"Machine '{machine.name}' stands on {len(machine.layers)} layers, and no more can be",
            f"'pymachine prune {machine.name}' joins those that no snapshot needs.",
        )


def new_identity() -> str:
    """Return a machine ID that nobody has."""
    return os.urandom(16).hex()


def give_identity(machine: Machine, identity: str) -> str:
    """Give a new machine an ID, where what it is made of has one; return it, or "".

    See machine-id(5): one that has none yet is given it at its first boot.
    """
    from machinectl_py.images.machine_view import (
        is_writable_disk,
        open_layers,
        open_machine,
        open_writable,
    )

    whole = machine.driver != "overlay"
    with open_machine(machine) if whole else open_layers(machine, machine.layers) as root:
        if not store.machine_id(root):
            return ""
    if machine.driver == "reflink" and not is_writable_disk(machine.base):
        return ""
    from machinectl_py.images.finish import write_in_root

    with open_writable(machine) as root:
        write_in_root(root, "/etc/machine-id", f"{identity}\n".encode(), mode=0o444)
    return identity


def now() -> int:
    """Return CLOCK_REALTIME in microseconds."""
    return time.time_ns() // 1000


def require_machine(name: str) -> Machine:
    """Return the record of a machine.

    Raises:
        ConfigError: the name is not valid.
        NotFoundError: there is none.
    """
    store.check_name(name)
    machine = find_machine(name)
    if machine is not None:
        return machine
    store.find_root(name)
    raise NotFoundError(
        f"'{name}' is an image, and no machine",
        f"'pymachine create {name} NAME' makes one.",
    )


def adopt(name: str) -> Machine:
    """Return the record of a machine; of an image that is used in place, the machine is made.

    Raises:
        NotFoundError: there is neither.
        PymachineError: it cannot be made.
    """
    store.check_name(name)
    return find_machine(name) or create(name, name)


def remove_machine(name: str) -> None:
    """Remove a machine with its snapshots.

    Raises:
        NotFoundError: there is none.
        ConflictError: it runs.
    """
    with Stopped(name):
        machine = require_machine(name)
        with Change():
            if machine.marked and users_of(machine.base) == (machine,):
                unmark(machine.base)
            remove_record(name)
        if not store.image_exists(name):
            remove_settings(name, machine.base)
