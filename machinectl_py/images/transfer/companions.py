"""What a server has beside an image: settings, root hash, verity data; all of it optional.

The names are the image's without its suffixes, and the new one; each file is verified by the same
rules as the image.
"""

from __future__ import annotations

import io

from machinectl_py.errors import NotFoundError, PymachineError
from machinectl_py.images.transfer.compress import image_name
from machinectl_py.images.transfer.download import downloaded, forget, read_small
from machinectl_py.images.transfer.verify import check_digest, digest_of, expected_digest
from machinectl_py.images.transfer.web import file_name, sibling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.beside import Companions
    from machinectl_py.images.transfer.job import Job
    from machinectl_py.images.transfer.verify import Trust

SETTINGS, ROOT_HASH, SIGNATURE, VERITY = ".nspawn", ".roothash", ".roothash.p7s", ".verity"
OF_KIND = {"tar": (SETTINGS,), "raw": (SETTINGS, ROOT_HASH, SIGNATURE, VERITY)}


def fetch(
    url: str, wanted: tuple[str, ...], companions: Companions, *, trust: Trust, job: Job
) -> None:
    """Download what there is beside an image.

    Args:
        url: of the image.
        wanted: suffixes of what is asked for.
        companions: what the files are added to.
        trust: how they are verified.
        job: under way.

    Raises:
        NotFoundError: one has no checksum, or no signature of it.
        PymachineError: one is not what was signed; a server fails; interrupted.
        OSError: with the path.
    """
    stem = image_name(file_name(url))
    urls = {suffix: sibling(url, stem + suffix) for suffix in wanted}
    small = tuple(urls[suffix] for suffix in wanted if suffix != VERITY)
    found = read_small(small, job) if small else {}
    for suffix in wanted:
        if suffix == VERITY:
            # Of use with a root hash only, which says what of it is true.
            if urls.get(ROOT_HASH) in found:
                _fetch_large(urls[suffix], suffix, companions, trust=trust, job=job)
            continue
        if urls[suffix] not in found:
            continue
        data = found[urls[suffix]]
        digest = _expected(urls[suffix], trust, job)
        if digest and digest_of(io.BytesIO(data)) != digest:
            raise PymachineError(
                f"The checksum of {urls[suffix]} is wrong: it was tampered with, or damaged"
            )
        companions.add(suffix, io.BytesIO(data))


def _fetch_large(url: str, suffix: str, companions: Companions, *, trust: Trust, job: Job) -> None:
    try:
        with downloaded(url, job) as path:
            if digest := _expected(url, trust, job):
                try:
                    check_digest(path, digest, url)
                except PymachineError:
                    forget(path)
                    raise
            with open(path, "rb") as file:
                companions.add(suffix, file)
    except NotFoundError as error:
        if error.message.startswith(f"{url}:"):  # there is none; not: it has no checksum
            return
        raise


def _expected(url: str, trust: Trust, job: Job) -> str:
    """Return the checksum that a file must have; "" if none is asked for."""
    if trust.mode == "no":
        return ""
    try:
        return expected_digest(url, trust.mode or "signature", trust.keyring, job)
    except NotFoundError as error:
        error.hint = f"{error.hint} Or leave it where it is: see --help for what turns it off."
        raise
