"""The files beside a machine or image, as they go into a backup and come out of it."""

from __future__ import annotations

import os
import shutil

from machinectl_py.images import store
from machinectl_py.images.beside import HASHES, stem_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.beside import Companions

_SUFFIXES = (".nspawn", ".nspawn.d")
# What is in the place of whose files, in the order of systemd-nspawn's search, and where they go
# back to. Those beside the image may set less; systemd.nspawn(5).
_ADMINISTRATORS, _BESIDE = "administrator", "beside"
_PLACES = ("/etc/systemd/nspawn", "/run/systemd/nspawn")


def collect(name: str, base: str, into: str) -> None:
    """Copy the settings of a machine or image into a directory, under names that any machine has.

    Args:
        name: of the machine.
        base: path of its image.
        into: an empty directory.

    Raises:
        OSError: with the path.
    """
    places = [(place, _ADMINISTRATORS) for place in _PLACES]
    for place, owner in (*places, (os.path.dirname(base), _BESIDE)):
        for suffix in _SUFFIXES:
            source, target = f"{place}/{name}{suffix}", f"{into}/{owner}{suffix}"
            if os.path.exists(source) and not os.path.exists(target):
                _copy(source, target)


def collect_hashes(image: str, into: str) -> None:
    """Copy the hashes beside a disk image that is itself in the backup into a directory.

    Raises:
        OSError: with the path.
    """
    for suffix in HASHES if image.endswith(".raw") else ():
        if os.path.exists(stem_of(image) + suffix):
            _copy(stem_of(image) + suffix, f"{into}/{_BESIDE}{suffix}")


def put_hashes(from_: str, companions: Companions) -> None:
    """Have the hashes that a directory has stand beside the image that is being made.

    Raises:
        OSError: with the path.
    """
    for suffix in HASHES:
        if os.path.exists(f"{from_}/{_BESIDE}{suffix}"):
            with open(f"{from_}/{_BESIDE}{suffix}", "rb") as file:
                companions.add(suffix, file)


def put_back(name: str, from_: str) -> None:
    """Give a machine the settings that a directory has, unless it has some of its own.

    Raises:
        OSError: with the path.
    """
    for owner, place in ((_ADMINISTRATORS, _PLACES[0]), (_BESIDE, store.MACHINES_DIR)):
        for suffix in _SUFFIXES:
            source, target = f"{from_}/{owner}{suffix}", f"{place}/{name}{suffix}"
            if os.path.exists(source) and not os.path.lexists(target):
                os.makedirs(place, 0o755, exist_ok=True)
                _copy(source, target)


def _copy(source: str, target: str) -> None:
    if os.path.isdir(source):
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
