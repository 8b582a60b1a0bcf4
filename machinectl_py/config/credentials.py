"""Credentials: their names, their sizes, and those of the service that we run as.

See systemd.exec(5), "CREDENTIALS". The data travel in a spec as base64, since a record holds text.
"""

from __future__ import annotations

import os

from machinectl_py.config.spec import CredentialSpec
from machinectl_py.errors import ConfigError, NotFoundError

_NAME_MAX = 255
_TOTAL_SIZE_MAX = 1 << 20  # bytes of all of a service's credentials


def is_valid_name(name: str) -> bool:
    """Say whether a credential may have this name: a file name of printable ASCII without ':'."""
    return (
        0 < len(name) <= _NAME_MAX
        and name not in (".", "..")
        and all(" " < letter < "\x7f" and letter not in "/:" for letter in name)
    )


def encode(name: str, data: bytes) -> CredentialSpec:
    """Return a credential of these bytes."""
    import binascii

    return CredentialSpec(name=name, data=binascii.b2a_base64(data, newline=False).decode())


def decode(credential: CredentialSpec) -> bytes:
    """Return the bytes of a credential.

    Raises:
        ConfigError: it is no base64.
    """
    import binascii

    try:
        return binascii.a2b_base64(credential.data, strict_mode=True)
    except binascii.Error as error:
        raise ConfigError(f"The credential '{credential.name}' is not valid base64") from error


def check_credentials(credentials: tuple[CredentialSpec, ...]) -> None:
    """Refuse credentials that no payload could be given.

    Raises:
        ConfigError: a name is not valid or there twice, or they are too large.
    """
    names: set[str] = set()
    total = 0
    for credential in credentials:
        if not is_valid_name(credential.name):
            raise ConfigError(f"'{credential.name}' is no valid name of a credential")
        if credential.name in names:
            raise ConfigError(f"The credential '{credential.name}' is given twice")
        names.add(credential.name)
        total += len(decode(credential))
    if total > _TOTAL_SIZE_MAX:
        raise ConfigError(
            f"The credentials are {total} bytes large; at most {_TOTAL_SIZE_MAX} can be passed"
        )


def inherited_credential(name: str) -> CredentialSpec:
    """Return a credential of the service that we run as, from $CREDENTIALS_DIRECTORY.

    As `--load-credential=ID:NAME` means a NAME that is no absolute path.

    Raises:
        ConfigError: the name is not valid.
        NotFoundError: we were given none of this name.
    """
    if not is_valid_name(name):
        raise ConfigError(f"'{name}' is neither an absolute path nor the name of a credential")
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    try:
        with open(f"{directory}/{name}", "rb") as file:
            return encode(name, file.read(_TOTAL_SIZE_MAX + 1))
    except OSError as error:
        cause = error.strerror if directory else "$CREDENTIALS_DIRECTORY is not set"
        raise NotFoundError(f"There is no credential '{name}' to pass on: {cause}") from error


def inherited_credentials() -> tuple[CredentialSpec, ...]:
    """Return all credentials of the service that we run as, by name; none outside of one."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        return ()
    try:
        names = sorted(filter(is_valid_name, os.listdir(directory)))
    except OSError:
        return ()
    return tuple(inherited_credential(name) for name in names)


def load_credential(name: str, path: str) -> CredentialSpec:
    """Return a credential from an absolute path, or one of the service that we run as.

    Raises:
        ConfigError: neither a path nor a valid name.
        NotFoundError: it cannot be read.
    """
    if not path.startswith("/"):
        return encode(name, decode(inherited_credential(path)))
    try:
        with open(path, "rb") as file:
            return encode(name, file.read(_TOTAL_SIZE_MAX + 1))
    except OSError as error:
        raise NotFoundError(f"Failed to read the credential {path}: {error.strerror}") from error
