"""Debian, from the mirrors and keyrings of the host's apt."""

from __future__ import annotations

from machinectl_py.images.builders import mirror, mmdebstrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Recipe, Request

VARIANTS = ("minbase", "important", "standard")
follower = mmdebstrap.Watcher


def recipe(request: Request) -> Recipe:
    """Return what is to be run.

    Raises:
        ConfigError: a mirror makes no sense.
        UnsupportedError: mmdebstrap is not installed.
    """
    suite = request.suite or mirror.default_suite("debian", "stable")
    sources = mirror.given_sources(request, suite, ("main",))
    # Without any, mmdebstrap takes Debian's own.
    sources = sources or mirror.choose_sources(suite, mirror.host_sources("Debian"))
    return mmdebstrap.recipe(request, suite, mirror.with_trust(sources, request))
