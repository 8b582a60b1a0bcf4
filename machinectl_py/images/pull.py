"""Getting an image from the distribution's own packages."""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError, PymachineError, UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.aside import AS_NEW
from machinectl_py.images.transfer.making import making

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.aside import Aside, Placing
    from machinectl_py.images.mmdebstrap import Progress, Recipe

DISTRIBUTIONS = ("debian",)
VARIANTS = ("minbase", "important", "standard")
LOG_DIR = "/var/log/pymachine"
# An init, the bus and sessions, a console to log in at, and what one looks around with;
# nss-myhostname makes "localhost" and the machine's own name resolve.
_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "libnss-myhostname",
    "login",
    "passwd",
    "iproute2",
    "procps",
)
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def pull(
    distribution: str,
    suite: str,
    name: str,
    progress: Progress,
    *,
    variant: str = "minbase",
    include: tuple[str, ...] = (),
    placing: Placing = AS_NEW,
) -> str:
    """Make the image NAME from a distribution's packages.

    Whatever goes wrong, and on SIGINT, SIGTERM and SIGHUP, nothing is left but a log.

    Args:
        distribution: one of DISTRIBUTIONS.
        suite: its release; "" for the host's own or the stable one.
        name: of the image; "" for the distribution's.
        progress: called with what is being done and how far it is.
        variant: one of VARIANTS.
        include: packages to install besides.
        placing: how it takes its name.

    Returns:
        The image's directory.

    Raises:
        ConfigError: a word that is not valid.
        UnsupportedError: another distribution; mmdebstrap is not installed.
        DeniedError: the caller is not root.
        ConflictError: the image exists, or is being pulled.
        PymachineError: the build failed, or was interrupted.
    """
    name = name or distribution
    _check(distribution, suite, name, include)
    with making("pull", name, distribution, progress, placing) as (aside, job):
        recipe, keyrings = _recipe(suite, variant, include)
        return _build(aside, recipe, keyrings, job.progress)


def _check(distribution: str, suite: str, name: str, include: tuple[str, ...]) -> None:
    if distribution not in DISTRIBUTIONS:
        raise UnsupportedError(
            f"Cannot pull '{distribution}'", f"Supported: {', '.join(DISTRIBUTIONS)}."
        )
    store.check_name(name)
    for word in (suite, *include):
        # No leading "-", no comma or blank that would make two words of one for apt.
        if word and not (word[0] in _LOWER and _LOWER.union("+-.").issuperset(word)):
            raise ConfigError(f"'{word}' is no valid name of a suite or package")


def _recipe(suite: str, variant: str, include: tuple[str, ...]) -> tuple[Recipe, tuple[str, ...]]:
    """Return how the image is made, and the keyrings that its sources name."""
    from machinectl_py.images import mirror
    from machinectl_py.images.mmdebstrap import Recipe

    suite = suite or mirror.default_suite()
    sources = mirror.choose_sources(suite, mirror.host_sources())
    # Without its certificates the machine's own apt could not reach such a mirror.
    https = any(source.uri.startswith("https:") for source in sources)
    packages = dict.fromkeys((*_PACKAGES, *(("ca-certificates",) if https else ()), *include))
    recipe = Recipe(
        suite=suite,
        sources=tuple(source.line() for source in sources),
        variant=variant,
        packages=tuple(packages),
        environment=mirror.proxy_environment(),
    )
    return recipe, tuple(dict.fromkeys(s.keyring for s in sources if s.keyring))


def _build(aside: Aside, recipe: Recipe, keyrings: tuple[str, ...], progress: Progress) -> str:
    from machinectl_py.images.finish import finish_tree
    from machinectl_py.images.mmdebstrap import build

    log_path, log = _open_log(aside.name)
    try:
        aside.make_directory()
        build(recipe, aside.path, log=log, progress=progress, interruption=aside.interruption)
        progress("writing it to the disk", "")
        finish_tree(aside.path, keyrings)
        path = aside.commit()
    except PymachineError as error:
        if log >= 0 and not error.hint:
            error.hint = f"All of its output is in {log_path}."
        raise
    else:
        _remove_log(log_path)
    finally:
        if log >= 0:
            os.close(log)
    return path


def _open_log(name: str) -> tuple[str, int]:
    path = f"{LOG_DIR}/pull-{name}.log"
    try:
        os.makedirs(LOG_DIR, 0o755, exist_ok=True)
        return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    except OSError:  # a log is worth no failure
        return path, -1


def _remove_log(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # as little worth a failure as its making
        pass
