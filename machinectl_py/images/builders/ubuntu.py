"""Ubuntu, from its own mirrors or those of a host that is one."""

from __future__ import annotations

import os

from machinectl_py.errors import NotFoundError
from machinectl_py.images.builders import mirror, mmdebstrap
from machinectl_py.images.builders.mirror import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Recipe, Request

VARIANTS = ("minbase", "important", "standard")
follower = mmdebstrap.Watcher
_LTS = "noble"
_COMPONENTS = ("main", "universe")
_ARCHIVE, _PORTS = "http://archive.ubuntu.com/ubuntu", "http://ports.ubuntu.com/ubuntu-ports"
_KEYRING = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"


def recipe(request: Request) -> Recipe:
    """Return what is to be run.

    Raises:
        ConfigError: a mirror makes no sense.
        NotFoundError: there is no keyring.
        UnsupportedError: mmdebstrap is not installed.
    """
    suite = request.suite or mirror.default_suite("ubuntu", _LTS)
    sources = mirror.given_sources(request, suite, _COMPONENTS)
    sources = sources or mirror.choose_sources(suite, mirror.host_sources("Ubuntu"))
    sources = mirror.with_trust(sources or _archive(suite), request)
    return mmdebstrap.recipe(request, suite, tuple(_with_keyring(source) for source in sources))


def _archive(suite: str) -> tuple[Source, ...]:
    uri = _ARCHIVE if os.uname().machine in ("x86_64", "i686") else _PORTS
    suites = (suite, f"{suite}-updates", f"{suite}-security")
    return tuple(Source(uri=uri, suite=name, components=_COMPONENTS) for name in suites)


def _with_keyring(source: Source) -> Source:
    if source.keyring or source.trusted:
        return source
    if not os.path.isfile(_KEYRING):
        raise NotFoundError(
            f"There is no keyring {_KEYRING} to verify Ubuntu's packages by",
            "The package ubuntu-keyring (or ubuntu-archive-keyring) has it, --keyring=FILE names"
            " another, --mirror=URL another archive.",
        )
    return source.replace(keyring=_KEYRING)
