"""The `.nspawn` files of machines and images: they follow their names, as with machinectl."""

from __future__ import annotations

import os

# The administrator's; the third place is beside the image.
_PLACES = ("/etc/systemd/nspawn", "/run/systemd/nspawn")
_SUFFIXES = (".nspawn", ".nspawn.d")


def _paths(name: str, base: str) -> list[str]:
    places = (*_PLACES, os.path.dirname(base))
    return [f"{place}/{name}{suffix}" for place in places for suffix in _SUFFIXES]


def copy_settings(name: str, new: str, base: str) -> None:
    """Give what is made of a machine or image the same settings; its own, if any, stay.

    Raises:
        OSError: with the path.
    """
    for source, target in zip(_paths(name, base), _paths(new, base), strict=True):
        if not os.path.exists(source) or os.path.lexists(target):
            continue
        import shutil

        if os.path.isdir(source):
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def rename_settings(name: str, new: str, base: str) -> None:
    """Give the settings of a machine or image another name.

    Raises:
        OSError: with the paths.
    """
    for source, target in zip(_paths(name, base), _paths(new, base), strict=True):
        if os.path.lexists(source):
            os.rename(source, target)


def remove_settings(name: str, base: str) -> None:
    """Remove the settings of a machine or image.

    Raises:
        OSError: with the path.
    """
    for path in _paths(name, base):
        if os.path.isdir(path) and not os.path.islink(path):
            import shutil

            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
