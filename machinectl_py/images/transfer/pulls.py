"""Images from URLs: verified before anything of them is unpacked."""

from __future__ import annotations

import os
from contextlib import contextmanager

from machinectl_py.errors import (
    ConfigError,
    DeniedError,
    PymachineError,
    UnsupportedError,
    UsageError,
)
from machinectl_py.images import store
from machinectl_py.images.aside import AS_NEW, Placing
from machinectl_py.images.transfer import compress
from machinectl_py.images.transfer.companions import OF_KIND, fetch
from machinectl_py.images.transfer.download import downloaded, forget
from machinectl_py.images.transfer.job import Job
from machinectl_py.images.transfer.making import finish, making
from machinectl_py.images.transfer.source import opened
from machinectl_py.images.transfer.verify import Trust, check_digest, expected_digest
from machinectl_py.images.transfer.web import check_url, file_name
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machinectl_py.images.aside import Aside
    from machinectl_py.images.remotes import Remote
    from machinectl_py.images.transfer.download import Keep
    from machinectl_py.images.transfer.job import Progress
    from machinectl_py.images.transfer.simplestreams import Offer


class Wishes(Record):
    """What is to become of a download."""

    placing: Placing = AS_NEW
    beside: tuple[str, ...] = OF_KIND["raw"]  # suffixes of what is taken along, where it is there
    keep: Keep = ""  # the downloaded file; see `downloaded`


AS_IT_COMES = Wishes()


def kind_of(url: str) -> str:
    """Return "tar" or "raw" for a URL, by its suffixes.

    Raises:
        UsageError: they do not tell.
    """
    name = file_name(url).lower()
    for format_ in compress.FORMATS:
        for suffix in format_.suffixes:
            if name.endswith(suffix):
                name = name.removesuffix(suffix) + (".tar" if suffix.startswith(".t") else "")
                break
    if name.endswith((".tar", ".rootfs")):
        return "tar"
    if name.endswith((".raw", ".img", ".qcow2")):
        return "raw"
    raise UsageError(
        f"The name of {url} does not tell whether it is an archive or a disk image",
        "'pymachine pull-tar' and 'pymachine pull-raw' say so.",
    )


def pull_url(
    kind: str,
    url: str,
    name: str,
    progress: Progress,
    *,
    trust: Trust,
    warn: Callable[[str], None],
    wishes: Wishes = AS_IT_COMES,
) -> str:
    """Make an image of what a URL has.

    Args:
        kind: "tar" or "raw".
        url: http, https or file.
        name: of the image; "" to call it as the file.
        progress: called with what is being done and how far it is.
        trust: how it is verified.
        warn: called with each thing that is not as the archive has it.
        wishes: what else is to become of it.

    Returns:
        The image's path.

    Raises:
        ConfigError: the name or the way of verification is not valid.
        UnsupportedError: another scheme; a program is not installed.
        NotFoundError: the server has no such file, or no checksum or signature of it.
        DeniedError: the caller is not root.
        ConflictError: the image exists, or is being made.
        PymachineError: it is not what was signed; a server fails; interrupted.
    """
    trust.check()
    check_url(url)
    name = name or compress.image_name(file_name(url))
    store.check_name(name)
    wanted = tuple(suffix for suffix in OF_KIND[kind] if suffix in wishes.beside)
    with making(f"pull-{kind}", name, url, progress, wishes.placing) as (aside, job):
        digest = _digest(url, trust, job)
        fetch(url, wanted, aside.companions, trust=trust, job=job)
        with _verified(url, digest, job, wishes.keep) as path:
            unpack_file(kind, path, aside, job, limit=trust.limit, warn=warn)
        path = finish(aside, job)
        for other in aside.companions.kept:
            warn(f"{other} was there already, and stays as it is; --force replaces it")
        return path


def keep_url(kind: str, url: str, progress: Progress, *, trust: Trust) -> str:
    """Download and verify what a URL has, and keep it for the pulls to come; make no image.

    Args:
        kind: "tar" or "raw".
        url: http, https or file.
        progress: called with what is being done and how far it is.
        trust: how it is verified.

    Returns:
        The path of the kept file.

    Raises:
        PymachineError: and its kinds, as `pull_url`.
    """
    from machinectl_py.images.interruption import Interruption
    from machinectl_py.images.transfer.registry import registered

    trust.check()
    check_url(url)
    if os.geteuid() != 0:
        raise DeniedError("Only root may keep downloads", "Try again with sudo.")
    try:
        with (
            Interruption() as interruption,
            registered(f"pull-{kind}", "", url, progress) as told,
        ):
            job = Job(told, interruption, -1)
            with _verified(url, _digest(url, trust, job), job, "yes") as path:
                return path
    except OSError as error:
        raise PymachineError(f"Cannot keep {url}: {error.strerror or error}") from error


def _digest(url: str, trust: Trust, job: Job) -> str:
    """Return the checksum that a file must have; "" if none is asked for."""
    if trust.mode == "no":
        return ""
    return expected_digest(url, trust.mode or "signature", trust.keyring, job)


def pull_from(
    source: str,
    name: str,
    progress: Progress,
    *,
    trust: Trust,
    warn: Callable[[str], None],
    wishes: Wishes = AS_IT_COMES,
) -> str:
    """Make an image of a source, whose form says what it is.

    Args:
        source: a URL; one of OCI ("docker://debian:12"); or REMOTE:IMAGE.
        name: of the image; "" for one that fits.
        progress: called with what is being done and how far it is.
        trust: how it is verified.
        warn: called with each thing that is not as it should be.
        wishes: what else is to become of it.

    Returns:
        The image's path.

    Raises:
        PymachineError: and its kinds, as `pull_url`.
    """
    from machinectl_py.images import remotes
    from machinectl_py.images.transfer.oci import TRANSPORTS

    if source.startswith(TRANSPORTS):
        return pull_oci(source, name, progress, warn=warn, placing=wishes.placing)
    if "://" in source:
        kind = kind_of(source)
        return pull_url(kind, source, name, progress, trust=trust, warn=warn, wishes=wishes)
    server, _, image = source.partition(":")
    remote = remotes.find(server)
    if not image:
        raise UsageError(f"'{source}' names no image of that remote")
    if remote.kind == "oci":
        source = f"{remote.url.rstrip('/')}/{image}"
        insecure, placing = remote.insecure, wishes.placing
        return pull_oci(source, name, progress, insecure=insecure, warn=warn, placing=placing)
    return pull_remote(remote, image, name, progress, trust=trust, warn=warn, wishes=wishes)


def pull_remote(
    remote: Remote,
    image: str,
    name: str,
    progress: Progress,
    *,
    trust: Trust,
    warn: Callable[[str], None],
    wishes: Wishes = AS_IT_COMES,
) -> str:
    """Make an image of one that a server of simplestreams has.

    By default its checksum is verified, and the signature if the remote has a keyring.

    Args:
        remote: the server.
        image: of it, such as "debian/12".
        name: of the image here; "" to call it so too, with hyphens.
        progress: called with what is being done and how far it is.
        trust: how it is verified.
        warn: called with each thing that is not as the archive has it.
        wishes: what else is to become of it.

    Returns:
        The image's path.

    Raises:
        PymachineError: and its kinds, as `pull_url`.
    """
    from machinectl_py.images.transfer import simplestreams

    name = name or image.replace("/", "-")
    store.check_name(name)
    source = f"{remote.name}:{image}"
    with making("pull", name, source, progress, wishes.placing) as (aside, job):
        found = simplestreams.find(_trusted(remote, trust), image, job)
        digest = "" if trust.mode == "no" else found.digest
        with _verified(found.url, digest, job, wishes.keep) as path:
            unpack_file(found.kind, path, aside, job, limit=trust.limit, warn=warn)
        return finish(aside, job)


def search(remote: Remote, word: str, progress: Progress) -> tuple[Offer, ...]:
    """Return the images of a server whose name or description has a word in it.

    Raises:
        UnsupportedError: registries list nothing.
        ConfigError: what the server says makes no sense; or it is not protected at all.
        PymachineError: a signature is not good; the server fails; interrupted.
    """
    from machinectl_py.images.interruption import Interruption
    from machinectl_py.images.transfer import simplestreams

    if remote.kind != "simplestreams":
        raise UnsupportedError(f"The remote '{remote.name}' is a registry, which lists nothing")
    with Interruption() as interruption:
        found = simplestreams.offers(remote, Job(progress, interruption, -1))
    return tuple(
        offer
        for offer in found
        if word.lower() in " ".join((offer.image, *offer.aliases, offer.description)).lower()
    )


def pull_oci(
    source: str,
    name: str,
    progress: Progress,
    *,
    insecure: bool = False,
    warn: Callable[[str], None],
    placing: Placing = AS_NEW,
) -> str:
    """Make an image of one of OCI; who may sign it says containers-policy.json(5).

    Args:
        source: as skopeo has it: "docker://debian:12", "oci:/srv/layout:tag".
        name: of the image here; "" to call it so too, without tag.
        progress: called with what is being done and how far it is.
        insecure: whether the registry may be without TLS.
        warn: called with what the image lacks.
        placing: how it takes its name.

    Returns:
        The image's path.

    Raises:
        PymachineError: and its kinds, as `pull_url`.
    """
    from machinectl_py.images.transfer import oci

    name = name or oci.image_name(source)
    if not name:
        raise UsageError(f"'{source}' names no image")
    store.check_name(name)
    with making("pull-oci", name, source, progress, placing) as (aside, job):
        oci.unpack(source, aside, job, insecure=insecure, warn=warn)
        return finish(aside, job)


def _trusted(remote: Remote, trust: Trust) -> Remote:
    """Return the remote with the keyring that counts.

    Raises:
        ConfigError: signatures are asked for, and there is no keyring.
    """
    trust.check()
    if trust.mode in ("no", "checksum"):
        return remote.replace(keyring="", insecure=trust.mode == "no" or remote.insecure)
    keyring = trust.keyring or remote.keyring
    if trust.mode == "signature" and not keyring:
        raise ConfigError(
            f"No keys are known that the remote '{remote.name}' signs with",
            "--keyring=FILE names them; without --verify= its TLS is believed.",
        )
    return remote.replace(keyring=keyring)


@contextmanager
def _verified(url: str, digest: str, job: Job, keep: Keep) -> Iterator[str]:
    """Give the path of a downloaded file whose checksum is right.

    Args:
        url: of the file.
        digest: its checksum; "" if none is asked for.
        job: under way.
        keep: see `downloaded`.
    """
    with downloaded(url, job, keep) as path:
        if digest:
            job.progress("verifying", "")
            try:
                check_digest(path, digest, url)
            except PymachineError:
                forget(path)  # to go on with it would be of no use
                raise
        yield path


def unpack_file(
    kind: str, path: str, aside: Aside, job: Job, *, limit: int, warn: Callable[[str], None]
) -> None:
    """Make the image of a file that has been verified.

    Args:
        kind: "tar", "raw" or "squashfs".
        path: of the file.
        aside: where it is made.
        job: under way.
        limit: the most that it may unpack to, in bytes; 0 for what the disk has.
        warn: called with each thing that is not as the archive has it.

    Raises:
        PymachineError: it is damaged, or does not fit; interrupted.
    """
    if kind == "squashfs":
        from machinectl_py.images.transfer import squashfs

        squashfs.unpack(path, aside, job)
        return
    with opened(path) as source:
        if kind == "raw":
            from machinectl_py.images.transfer import raw

            raw.unpack(source, aside.path, job, limit=limit)
        else:
            from machinectl_py.images.transfer import tar

            tar.unpack(source, aside, job, limit=limit, warn=warn)
