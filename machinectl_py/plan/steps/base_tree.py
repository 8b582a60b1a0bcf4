"""The directories and links that every root has, made where they are missing."""

from __future__ import annotations

import os

from machinectl_py.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context


class FillBaseTree(Step):
    """Make the directories of / that are missing, and the links into /usr."""

    name = "fill-base-tree"
    man = "file-hierarchy(7)"
    because = "before what is mounted on them, and before the root becomes read-only"

    def describe(self) -> str:
        """Return the act."""
        return "make what is missing of /{bin,dev,etc,lib,lib64,proc,root,run,sbin,sys,usr,var}"

    def apply(self, context: Context) -> None:
        """Make it; a root that cannot be written to fails only where something is needed."""
        for name, mode in _BASE:
            _make_directory(f"/{name}", mode)
        for name in ("bin", "lib", "sbin"):
            if os.path.isdir(f"/usr/{name}"):
                _link(f"usr/{name}", f"/{name}")
        if not os.path.lexists("/lib64") and (place := _loader_directory()):
            _link(place, "/lib64")


# As systemd makes them; no /tmp, whose mode depends on what it will be.
_BASE = (
    *(("root", 0o750), ("usr", 0o755), ("var", 0o755), ("etc", 0o755)),
    *(("proc", 0o555), ("sys", 0o555), ("dev", 0o555), ("run", 0o555)),
)
_LOADERS = ("ld-linux-x86-64", "ld-linux-aarch64", "ld64.so")


def _make_directory(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except OSError:  # it is there, or nothing can be made here
        pass


def _link(target: str, path: str) -> None:
    try:
        os.symlink(target, path)
    except OSError:
        pass


def _loader_directory() -> str:
    """Return where the dynamic loader of a 64 bit ABI is, "" where none is in /lib64."""
    for place in ("usr/lib64", "usr/lib"):
        try:
            names = os.listdir(f"/{place}")
        except OSError:
            continue
        if any(name.startswith(_LOADERS) for name in names):
            return place
    return ""
