"""Where the definitions of managed networks are kept, and the lock that all their files share."""

from __future__ import annotations

import os

from machinectl_py.config.managed_network import (
    ManagedNetwork,
    check_name,
    parse_definition,
    write_definition,
)
from machinectl_py.errors import ConfigError, NotFoundError
from machinectl_py.kernel.locks import drop_lock, wait_lock
from machinectl_py.layout import LOCK_DIR, NETWORK_DEFINITIONS_DIR
from machinectl_py.plan.link_names import short_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_LOCK = f"{LOCK_DIR}/.networks"  # no machine is called so
_SUFFIX = ".conf"


class NetworksLock:
    """Held by who changes anything of managed networks."""

    def __enter__(self) -> Self:
        """Wait for it."""
        os.makedirs(LOCK_DIR, mode=0o755, exist_ok=True)
        self._lock = wait_lock(_LOCK)
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        drop_lock(_LOCK, self._lock)


def definition_path(name: str) -> str:
    """Return the file that defines a network."""
    return f"{NETWORK_DEFINITIONS_DIR}/{name}{_SUFFIX}"


def bridge_name(name: str) -> str:
    """Return how the bridge of a network is called unless its definition says otherwise."""
    return short_name(f"pm-{name}")


def find_network(name: str) -> ManagedNetwork | None:
    """Return a network, or None if it is not defined.

    Raises:
        ConfigError: its definition is not valid, or cannot be read.
    """
    path = definition_path(name)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"Failed to read {path}: {error.strerror}") from error
    return parse_definition(name, data, path, bridge_name(name))


def need_network(name: str) -> ManagedNetwork:
    """Return a network.

    Raises:
        NotFoundError: it is not defined.
        ConfigError: as of `find_network`.
    """
    found = find_network(name)
    if found is None:
        raise NotFoundError(
            f"There is no network '{name}'", f"'pymachine network create {name}' makes it."
        )
    return found


def network_names() -> tuple[str, ...]:
    """Return the names of the networks that are defined, sorted."""
    try:
        files = os.listdir(NETWORK_DEFINITIONS_DIR)
    except FileNotFoundError:
        return ()
    return tuple(sorted(filter(_is_name, (file.removesuffix(_SUFFIX) for file in files))))


def _is_name(text: str) -> bool:
    try:
        return bool(check_name(text)) and os.path.isfile(definition_path(text))
    except ValueError:
        return False


def networks() -> tuple[ManagedNetwork, ...]:
    """Return the networks that are defined.

    Raises:
        ConfigError: a definition is not valid.
    """
    return tuple(filter(None, map(find_network, network_names())))


def save_network(network: ManagedNetwork) -> bool:
    """Define a network, with the lock held, unless there is one of its name; say whether.

    Raises:
        OSError: the file cannot be written.
    """
    path = definition_path(network.name)
    os.makedirs(NETWORK_DEFINITIONS_DIR, mode=0o755, exist_ok=True)
    if os.path.exists(path):
        return False
    write_file(path, write_definition(network), sync=True)
    return True


def write_file(path: str, text: str, *, sync: bool = False) -> None:
    """Write a file whole, and rename it into its place.

    Args:
        path: of the file.
        text: its content.
        sync: whether it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    directory, _, name = path.rpartition("/")
    aside = f"{directory}/.{name}.new"
    with open(
        os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644), "w"
    ) as f:
        f.write(text)
        f.flush()
        if sync:
            os.fsync(f.fileno())
    os.rename(aside, path)


def remove_file(path: str) -> None:
    """Remove a file; nothing if there is none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
