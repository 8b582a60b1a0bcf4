"""Which machine a name means, and whether it is to be made first."""

from __future__ import annotations

import os

from machinectl_py.errors import ConflictError
from machinectl_py.images import store
from machinectl_py.images.records import Machine, find_machine, refuse_existing, users_of
from machinectl_py.kernel.statfs import is_subvolume


def _of(machine: Machine, image: str) -> Machine:
    """Return a machine if it was made of this image, or is what is meant by its name.

    Raises:
        ConflictError: it was made of another.
    """
    if image not in (machine.name, machine.image):
        raise ConflictError(
            f"Machine '{machine.name}' was made from '{machine.image}', not from '{image}'",
            f"'pymachine boot {machine.name}' starts it.",
        )
    return machine


def machine_for(image: str, name: str, *, make: bool = True) -> Machine | None:
    """Return the machine that `boot IMAGE -M NAME` means; None if an image is used in place.

    Args:
        image: the name of an image or machine.
        name: of the machine; the image's to mean the one of the same name.
        make: make what is missing; otherwise only say what it would be, its layer being "".

    Raises:
        NotFoundError: there is no such image.
        ConflictError: NAME is of another image.
        PymachineError: it cannot be made.
    """
    found = find_machine(name)
    if found is not None:
        return _of(found, image)
    if name == image:
        root = store.find_root(image)
        if not (users_of(root) or store.is_read_only(root)):
            return None
    if make:
        try:
            from machinectl_py.images.machines import create

            return create(image, name)
        except ConflictError:  # of two at once, one is the second
            found = find_machine(name)
            if found is None:
                raise
            return _of(found, image)
    refuse_existing(name, but=image)
    base = store.find_root(image)
    subvolume = os.path.isdir(base) and is_subvolume(base)
    return Machine(
        name=name, driver="btrfs" if subvolume else "overlay", image=image, base=base, own=""
    )
