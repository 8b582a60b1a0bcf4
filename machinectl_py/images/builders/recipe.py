"""What a tree is to be made of, and what is to be run to make it."""

from __future__ import annotations

from machinectl_py.layout import RUN_DIR
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Follower(Protocol):
        """Follows a program's output line by line: how far it is, and why it failed."""

        cause: str  # the first error: what follows it is but its echo up the call chain
        no_space: bool

        def see(self, line: str) -> None:
            """Take a line in."""

        def doing(self) -> str:
            """Return what is being done: "unpacking the essential packages"."""

        def detail(self) -> str:
            """Return how far that is, "" where it is not known."""


# A file system in memory, of the build alone, for keys and configuration: `Recipe.files` are in it.
WORK_DIR = f"{RUN_DIR}/build"
# Of the tree, for packages that are being downloaded; removed at the end.
CACHE = ".pymachine-build"


class Request(Record):
    """What a user asks for."""

    root: str  # path of the tree, which is not there yet
    suite: str = ""  # release; "" for the one that fits
    variant: str = ""  # set of packages to start from; "" for the smallest
    include: tuple[str, ...] = ()  # packages besides
    mirrors: tuple[str, ...] = ()  # instead of the distribution's
    keyring: str = ""  # absolute path; "" for the one that is installed
    verified: bool = True  # packages have to be signed


class Recipe(Record):
    """What is to be run."""

    commands: tuple[tuple[str, ...], ...]  # one after the other; the program by its absolute path
    environment: tuple[tuple[str, str], ...] = ()  # besides PATH and a plain locale
    files: tuple[tuple[str, str], ...] = ()  # names in WORK_DIR, and what is in them
    mounts: bool = False  # whether the tree needs /proc and /dev, which the program does not mount
    keyrings: tuple[str, ...] = ()  # that the tree's own package manager will look for
