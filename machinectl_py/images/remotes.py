"""Servers of images by short names: those that everybody knows, and the administrator's.

A remote is a section of /etc/pymachine/remotes.conf, or of a file in remotes.conf.d beside it;
/usr/lib/pymachine and /run/pymachine have such files too. Of the same name there and here, /etc
counts; keys that are not given are left as they were:

    [work]
    Type=simplestreams
    URL=https://images.example.org
    Keyring=/etc/pymachine/work.gpg
"""

from __future__ import annotations

import configparser
import os

from machinectl_py.errors import ConfigError, NotFoundError
from machinectl_py.images.builders.table import DISTRIBUTIONS
from machinectl_py.record import Record

DIRECTORIES = ("/usr/lib/pymachine", "/run/pymachine", "/etc/pymachine")
TYPES = ("simplestreams", "oci")
_PUBLIC = """\
# The image server of Linux Containers: many distributions, made anew each day.
[images]
Type=simplestreams
URL=https://images.linuxcontainers.org

# Ubuntu's own images. With Keyring= and the key of its cloud images, signatures are verified too.
[ubuntu]
Type=simplestreams
URL=https://cloud-images.ubuntu.com/releases

# Docker Hub, for what 'pull docker://NAME' does not need.
[docker]
Type=oci
URL=docker://docker.io
"""
_KEYS = {"type": "kind", "url": "url", "keyring": "keyring", "insecure": "insecure"}
_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


class Remote(Record):
    """A server of images."""

    name: str
    kind: str = ""  # one of TYPES
    url: str = ""
    keyring: str = ""  # the keys that its index must be signed by; "" to trust TLS
    insecure: bool = False  # neither TLS nor signatures are asked for


def known() -> dict[str, Remote]:
    """Return all remotes by name.

    Raises:
        ConfigError: a file has something that is not valid; with its path.
    """
    remotes = _read_text(_PUBLIC, "the built-in list", {})
    for path in _files():
        with open(path, encoding="utf-8") as file:
            remotes = _read_text(file.read(), path, remotes)
    return remotes


def find(name: str) -> Remote:
    """Return the remote of a name.

    Raises:
        NotFoundError: there is none.
        ConfigError: as `known`; or it lacks a type or URL.
    """
    remotes = known()
    if name not in remotes and name in DISTRIBUTIONS:
        raise NotFoundError(
            f"There is no remote '{name}'",
            f"'pymachine pull {name} --suite=SUITE' builds one of its packages, "
            f"'pymachine pull images:{name}/SUITE' gets one that was built.",
        )
    if name not in remotes:
        raise NotFoundError(
            f"There is no remote '{name}'",
            f"Known: {', '.join(sorted(remotes))}. /etc/pymachine/remotes.conf adds others.",
        )
    remote = remotes[name]
    if not remote.kind or not remote.url:
        raise ConfigError(f"The remote '{name}' has no {'URL' if remote.kind else 'Type'}=")
    return remote


def _files() -> list[str]:
    """Return the files in the order in which they are read: a later one counts."""
    found, drop_ins = list[str](), dict[str, str]()
    for directory in DIRECTORIES:
        if os.path.isfile(f"{directory}/remotes.conf"):
            found.append(f"{directory}/remotes.conf")
        below = f"{directory}/remotes.conf.d"
        if os.path.isdir(below):
            drop_ins |= {name: f"{below}/{name}" for name in os.listdir(below)}
    return found + [drop_ins[name] for name in sorted(drop_ins) if name.endswith(".conf")]


def _read_text(text: str, path: str, remotes: dict[str, Remote]) -> dict[str, Remote]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text, path)
    except configparser.Error as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    result = dict(remotes)
    for name in parser.sections():
        values: dict[str, str | bool] = {}
        for key, value in parser[name].items():
            if key not in _KEYS:
                raise ConfigError(f"{path}: [{name}]: unknown key '{key}'")
            values[_KEYS[key]] = _boolean(value, path, name) if key == "insecure" else value
        if values.get("kind", TYPES[0]) not in TYPES:
            raise ConfigError(f"{path}: [{name}]: Type={values['kind']}: it is one of {TYPES}")
        result[name] = result.get(name, Remote(name=name)).replace(**values)
    return result


def _boolean(value: str, path: str, name: str) -> bool:
    if value.lower() not in (*_YES, *_NO):
        raise ConfigError(f"{path}: [{name}]: Insecure={value}: it is yes or no")
    return value.lower() in _YES
