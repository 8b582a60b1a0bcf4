"""Images from URLs: verified before anything of them is unpacked."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UsageError
from machinectl_py.images import store
from machinectl_py.images.aside import made_aside
from machinectl_py.images.transfer import compress
from machinectl_py.images.transfer.download import downloaded, forget
from machinectl_py.images.transfer.job import Job
from machinectl_py.images.transfer.source import opened
from machinectl_py.images.transfer.verify import MODES, check_digest, expected_digest
from machinectl_py.images.transfer.web import check_url, file_name
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.images.aside import Aside
    from machinectl_py.images.transfer.job import Progress


class Trust(Record):
    """How a download is to be verified."""

    mode: str = "signature"  # one of MODES
    keyring: str = ""  # of the signer; "" for systemd's
    limit: int = 0  # the most that it may unpack to, in bytes; 0 for what the disk has

    def check(self) -> None:
        """Refuse what is no mode.

        Raises:
            ConfigError: it is none.
        """
        if self.mode not in MODES:
            raise ConfigError(f"--verify={self.mode}: must be one of {', '.join(MODES)}")


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
) -> str:
    """Make an image of what a URL has.

    Args:
        kind: "tar" or "raw".
        url: http, https or file.
        name: of the image; "" to call it as the file.
        progress: called with what is being done and how far it is.
        trust: how it is verified.
        warn: called with each thing that is not as the archive has it.

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
    with made_aside(name) as aside:
        job = Job(progress, aside.interruption, aside.lock)
        digest = ""
        if trust.mode != "no":
            digest = expected_digest(url, trust.mode, trust.keyring, job)
        with downloaded(url, job) as path:
            if digest:
                progress("verifying", "")
                try:
                    check_digest(path, digest, url)
                except Exception:
                    forget(path)  # to go on with it would be of no use
                    raise
            unpack_file(kind, path, aside, job, limit=trust.limit, warn=warn)
        progress("writing it to the disk", "")
        return aside.commit()


def unpack_file(
    kind: str, path: str, aside: Aside, job: Job, *, limit: int, warn: Callable[[str], None]
) -> None:
    """Make the image of a file that has been verified.

    Raises:
        PymachineError: it is damaged, or does not fit; interrupted.
    """
    with opened(path) as source:
        if kind == "raw":
            from machinectl_py.images.transfer import raw

            raw.unpack(source, aside.path, job, limit=limit)
        else:
            from machinectl_py.images.transfer import tar

            tar.unpack(source, aside, job, limit=limit, warn=warn)
