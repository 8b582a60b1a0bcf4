"""Which distributions there are, each a module of its own.

A module has `recipe(request)`, `follower()`, and `VARIANTS`: the sets of packages that one can
start from, the usual first.
"""

from __future__ import annotations

from machinectl_py.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from machinectl_py.images.builders.recipe import Follower, Recipe, Request

    class Builder(Protocol):
        """A module of a distribution."""

        VARIANTS: tuple[str, ...]

        def recipe(self, request: Request) -> Recipe:
            """Return what is to be run."""

        def follower(self) -> Follower:
            """Return what follows its output."""


DISTRIBUTIONS = ("debian", "ubuntu", "fedora", "centos", "arch")


def find_builder(distribution: str) -> Builder:
    """Return the module of a distribution.

    Raises:
        UnsupportedError: there is none.
    """
    if distribution not in DISTRIBUTIONS:
        raise UnsupportedError(
            f"Cannot pull '{distribution}'",
            f"There are {', '.join(DISTRIBUTIONS)}; 'pymachine search {distribution}' shows what"
            " servers have.",
        )
    from importlib import import_module

    builder: Builder = import_module(f"machinectl_py.images.builders.{distribution}")
    return builder
