"""Getting an image from the distribution's own packages."""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError, PymachineError, UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.aside import AS_NEW
from machinectl_py.images.builders.table import find_builder
from machinectl_py.images.transfer.making import finish, making

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.aside import Aside, Placing
    from machinectl_py.images.builders.recipe import Follower, Recipe, Request
    from machinectl_py.images.transfer.job import Job, Progress

LOG_DIR = "/var/log/pymachine"
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST.union("+-._")


def pull(
    distribution: str,
    name: str,
    progress: Progress,
    *,
    request: Request,
    placing: Placing = AS_NEW,
) -> str:
    """Make the image NAME from a distribution's packages.

    Whatever goes wrong, and on SIGINT, SIGTERM and SIGHUP, nothing is left but a log.

    Args:
        distribution: one of `builders.table.DISTRIBUTIONS`.
        name: of the image; "" for the distribution's.
        progress: called with what is being done and how far it is.
        request: what it is to be made of; its root is of no meaning.
        placing: how it takes its name.

    Returns:
        The image's directory.

    Raises:
        ConfigError: a word that is not valid.
        NotFoundError: there is no keyring.
        UnsupportedError: another distribution; its package manager is not installed.
        DeniedError: the caller is not root.
        ConflictError: the image exists, or is being pulled.
        PymachineError: the build failed, or was interrupted.
    """
    builder = find_builder(distribution)
    name = name or distribution
    store.check_name(name)
    request = _checked(distribution, request, builder.VARIANTS)
    with making("pull", name, distribution, progress, placing) as (aside, job):
        recipe = builder.recipe(request.replace(root=aside.path))
        return _build(aside, recipe, builder.follower(), job)


def _checked(distribution: str, request: Request, variants: tuple[str, ...]) -> Request:
    """Return the request with a keyring's absolute path, if it makes sense."""
    for word in (request.suite, *request.include):
        # No leading "-", no comma or blank that would make two words of one for apt.
        if word and not (word[0] in _FIRST and _REST.issuperset(word)):
            raise ConfigError(f"'{word}' is no valid name of a suite or package")
    if request.variant and request.variant not in variants:
        raise UnsupportedError(
            f"There is no variant '{request.variant}' of {distribution}",
            f"There are {', '.join(variants)}." if variants else "--include= adds packages.",
        )
    for mirror in request.mirrors:
        if "://" not in mirror or not mirror.isprintable():
            raise ConfigError(f"--mirror='{mirror}' is no URL")
    if request.keyring and not os.path.isfile(request.keyring):
        raise ConfigError(f"There is no keyring {request.keyring}")
    return request.replace(keyring=os.path.abspath(request.keyring) if request.keyring else "")


def _build(aside: Aside, recipe: Recipe, follower: Follower, job: Job) -> str:
    from machinectl_py.images.builders.runner import build
    from machinectl_py.images.finish import finish_tree

    log_path, log = _open_log(aside.name)
    try:
        aside.make_directory()
        build(
            recipe,
            follower,
            aside.path,
            log=log,
            progress=job.progress,
            interruption=aside.interruption,
        )
        finish_tree(aside.path, recipe.keyrings)
        path = finish(aside, job)
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
