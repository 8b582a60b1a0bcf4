"""Servers that list their images as simplestreams do: those of Linux Containers, and Ubuntu's.

`streams/v1/index.json` names lists of products; a product has aliases ("debian/12"), and versions
of files. With a keyring the same is read from `.sjson`, which is signed in itself.
"""

from __future__ import annotations

import json
import os

from machinectl_py.errors import ConfigError, NotFoundError, PymachineError, UnsupportedError
from machinectl_py.images.transfer.download import read_small
from machinectl_py.images.transfer.verify import check_signature, keyrings
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from machinectl_py.images.remotes import Remote
    from machinectl_py.images.transfer.job import Job

_INDEX = "streams/v1/index.json"
# uname(2)'s names of machines, as Debian and all of these servers call the architectures.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "i386",
    "armv7l": "armhf",
    "ppc64le": "ppc64el",
}
# Kinds of files that have a whole root, the best first: an archive keeps all attributes.
_ROOTS = ("root.tar.xz", "root.tar.zst", "root.tar.gz", "squashfs")
_DIGEST = 64


class Found(Record):
    """A root that a server has."""

    url: str
    digest: str  # SHA-256, hexadecimal
    kind: str  # "tar" or "squashfs"
    version: str


class Offer(Record):
    """An image that a server has for this machine's architecture."""

    image: str  # the shortest alias
    aliases: tuple[str, ...]  # the others
    version: str  # the newest
    description: str


def offers(remote: Remote, job: Job) -> tuple[Offer, ...]:
    """Return what a server has for this machine's architecture, sorted.

    Raises:
        ConfigError: what the server says makes no sense; or it is not protected at all.
        PymachineError: a signature is not good; the server fails; interrupted.
    """
    try:
        found = [_offer(product) for product in _products(remote, job) if _is_for_us(product)]
    except _NONSENSE as error:
        raise _nonsense(remote, error) from error
    return tuple(sorted(found, key=lambda offer: offer.image))


def _offer(product: dict[str, Any]) -> Offer:
    first, *others = sorted(_names(product), key=lambda name: (len(name), name))
    words = (product.get(key, "") for key in ("os", "release_title", "variant"))
    return Offer(
        image=first,
        aliases=tuple(others),
        version=max(product["versions"], default=""),
        description=" ".join(str(word) for word in words if word),
    )


def find(remote: Remote, image: str, job: Job) -> Found:
    """Return where the newest version of an image is.

    Args:
        remote: the server.
        image: an alias, such as "debian/12", or the name of a product.
        job: under way.

    Raises:
        NotFoundError: there is no such image for this machine's architecture.
        ConfigError: what the server says makes no sense; or it is not protected at all.
        PymachineError: a signature is not good; the server fails; interrupted.
    """
    near: set[str] = set()
    try:
        for product in _products(remote, job):
            names = _names(product)
            if _is_for_us(product) and (image in names or f"{image}/default" in names):
                return _newest(remote, product, image)
            near |= {name for name in names if name.startswith(image.partition("/")[0])}
    except _NONSENSE as error:
        raise _nonsense(remote, error) from error
    some = ", ".join(sorted(near)[:8])
    raise NotFoundError(
        f"The remote '{remote.name}' has no image '{image}' for {_architecture()}",
        f"It has {some}." if some else "",
    )


# What reading something of another shape than expected ends in.
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError)


def _nonsense(remote: Remote, error: Exception) -> ConfigError:
    return ConfigError(f"The list of images at {remote.url} makes no sense: {error}")


def _products(remote: Remote, job: Job) -> Iterator[dict[str, Any]]:
    """Yield the products of all lists that the index names; the lists are read at once."""
    if not (remote.url.startswith(("https://", "file://")) or remote.keyring or remote.insecure):
        raise ConfigError(
            f"The remote '{remote.name}' is protected by neither TLS nor signatures",
            "Give it a Keyring=, or Insecure=yes in remotes.conf.",
        )
    job.progress("reading the list of images", "")
    index = _read(remote, (_INDEX,), job)[0]
    lists = tuple(
        str(entry["path"])
        for entry in index["index"].values()
        if entry.get("datatype") == "image-downloads"
    )
    for data in _read(remote, lists, job):
        for name, product in data["products"].items():
            yield {**product, "name": name}


def _read(remote: Remote, paths: tuple[str, ...], job: Job) -> tuple[dict[str, Any], ...]:
    if remote.keyring:
        paths = tuple(path.removesuffix(".json") + ".sjson" for path in paths)
    urls = tuple(_url(remote, path) for path in paths)
    found = read_small(urls, job)
    result: list[dict[str, Any]] = []
    for url in urls:
        if url not in found:
            raise PymachineError(f"{url}: the server has no such file")
        text = found[url]
        if remote.keyring:
            text = check_signature(text, b"", keyrings(remote.keyring), job)
        result.append(json.loads(text))
    return tuple(result)


def _url(remote: Remote, path: str) -> str:
    """Return the URL of a path of the server's; it cannot name another server."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "" in parts:
        raise ValueError(f"path '{path}'")
    return f"{remote.url.rstrip('/')}/{path}"


def _names(product: dict[str, Any]) -> set[str]:
    aliases = (alias.strip() for alias in product.get("aliases", "").split(","))
    return {product["name"], *(alias for alias in aliases if alias)}


def _is_for_us(product: dict[str, Any]) -> bool:
    return bool(product.get("arch") == _architecture())


def _architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _newest(remote: Remote, product: dict[str, Any], image: str) -> Found:
    for version in sorted(product["versions"], reverse=True):
        items = product["versions"][version]["items"].values()
        for kind in _ROOTS:
            item = next((item for item in items if item.get("ftype") == kind), None)
            if item is None:
                continue
            digest = str(item["sha256"]).lower()
            if len(digest) != _DIGEST:
                raise ValueError(f"checksum '{digest}'")
            return Found(
                url=_url(remote, str(item["path"])),
                digest=digest,
                kind="tar" if "tar" in kind else kind,
                version=version,
            )
    raise UnsupportedError(
        f"The remote '{remote.name}' has '{image}' for virtual machines only",
        "There is no root of files in it.",
    )
