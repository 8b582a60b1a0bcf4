"""Versioned directories: of what is in `NAME.v/`, the newest version counts; systemd.v(7)."""

from __future__ import annotations

import os

from machinectl_py.errors import NotFoundError
from machinectl_py.images.versions import compare_versions
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WILDCARD = "___"
# uname -m → what this host runs, the native one first; systemd.unit(5), ConditionArchitecture=.
_RUNS = {
    "x86_64": ("x86-64", "x86"),
    "aarch64": ("arm64", "arm"),
    "ppc64le": ("ppc64-le",),
    "riscv64": ("riscv64",),
    "s390x": ("s390x", "s390"),
    "i686": ("x86",),
}
_ARCHITECTURES = (
    *("x86-64", "x86", "arm64", "arm64-be", "arm", "arm-be", "riscv64", "riscv32", "loongarch64"),
    *("ppc64-le", "ppc64", "ppc-le", "ppc", "s390x", "s390", "mips64-le", "mips64", "mips-le"),
    *("mips", "sparc64", "sparc", "alpha", "ia64", "parisc64", "parisc", "m68k"),
)


class _Version(Record):
    """An entry of a versioned directory."""

    path: str
    version: str
    rank: int  # of its architecture: 0 is the native one's
    tries_left: int  # -1: it need not be tried
    tries_done: int


def base_name(path: str) -> str:
    """Return what a path names: "foo" of "…/foo.v" and "…/foo.v/foo___.raw"."""
    name = os.path.basename(path.rstrip("/"))
    if _WILDCARD in name and os.path.dirname(path.rstrip("/")).endswith(".v"):
        return name.partition(_WILDCARD)[0]
    return name.removesuffix(".v")


def pick_directory(path: str) -> str:
    """Return the newest directory of a versioned one; errors as of `pick`."""
    return pick(path, "", os.path.isdir)


def pick_image(path: str) -> str:
    """Return the newest disk image of a versioned directory; errors as of `pick`."""
    return pick(path, ".raw", lambda entry: os.path.exists(entry) and not os.path.isdir(entry))


def pick(path: str, suffix: str, accept: Callable[[str], bool]) -> str:
    """Return the newest version if the path is one of a versioned directory, else the path.

    Args:
        path: "…/NAME.v", "…/NAME.v/NAME___SUFFIX", or any other.
        suffix: of what is looked for, such as ".raw"; "" for directories.
        accept: says whether an entry is of the kind that is looked for.

    Raises:
        NotFoundError: the versioned directory holds none.
    """
    directory, name = os.path.split(path.rstrip("/"))
    if _WILDCARD in name and directory.endswith(".v"):
        stem, _, suffix = name.partition(_WILDCARD)
    elif name.endswith(".v") and len(name) > 2 and os.path.isdir(path):
        directory, stem = path.rstrip("/"), name.removesuffix(".v").removesuffix(suffix)
    else:
        return path
    found = [
        version
        for entry in _entries(directory)
        if (version := _parse(f"{directory}/{entry}", entry, stem, suffix)) and accept(version.path)
    ]
    if not found:
        raise NotFoundError(f"There is no version of {stem}{suffix} in {directory}")
    newest = found[0]
    for version in found[1:]:
        newest = version if _compare(version, newest) > 0 else newest
    return newest.path


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise NotFoundError(f"{directory}: {error.strerror}") from error


def _parse(path: str, entry: str, stem: str, suffix: str) -> _Version | None:
    """Return an entry STEM_VERSION[_ARCHITECTURE][+LEFT[-DONE]]SUFFIX; None: it is none for us."""
    if not entry.startswith(f"{stem}_") or not entry.endswith(suffix):
        return None
    middle = entry[len(stem) + 1 : len(entry) - len(suffix)]
    left, done = -1, 0
    rest, plus, tries = middle.rpartition("+")
    if plus:
        left_text, dash, done_text = tries.partition("-")
        if left_text.isdecimal() and (done_text.isdecimal() if dash else True):
            middle, left, done = rest, int(left_text), int(done_text or 0)
    version, _, architecture = middle.rpartition("_")
    runs = _RUNS.get(os.uname().machine, ())
    if architecture not in _ARCHITECTURES:
        version, rank = middle, len(runs)
    elif architecture in runs:
        rank = runs.index(architecture)
    else:
        return None
    if not version:
        return None
    return _Version(path=path, version=version, rank=rank, tries_left=left, tries_done=done)


def _compare(one: _Version, other: _Version) -> int:
    """Say which is to be taken: tries left at all, the newest, native, the most tries left."""
    if (one.tries_left == 0) != (other.tries_left == 0):
        return -1 if one.tries_left == 0 else 1
    if order := compare_versions(one.version, other.version):
        return order
    keys = [
        (-version.rank, version.tries_left if version.tries_left >= 0 else 1 << 31,
         -version.tries_done, version.path)
        for version in (one, other)
    ]  # fmt: skip
    return 1 if keys[0] > keys[1] else -1
