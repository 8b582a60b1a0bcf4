"""What a downloaded file has to be: checksums, and signatures of those; gpgv(1).

As with machinectl: either NAME.sha256 beside the file NAME, signed in itself or by
NAME.sha256.asc or .gpg, or SHA256SUMS in the same directory, signed by SHA256SUMS.gpg or .asc.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile

from machinectl_py.errors import ConfigError, NotFoundError, PymachineError, UnsupportedError
from machinectl_py.images.transfer.confine import Place, Tool, World, find_program
from machinectl_py.images.transfer.download import read_small
from machinectl_py.images.transfer.flow import follow
from machinectl_py.images.transfer.web import file_name, sibling
from machinectl_py.kernel import const
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedIOBase

    from machinectl_py.images.transfer.job import Job

MODES = ("no", "checksum", "signature")
# systemd's: the administrator's keyring instead of the distribution's.
_KEYRINGS = (
    ("/etc/systemd/import-pubring.pgp", "/etc/systemd/import-pubring.gpg"),
    ("/usr/lib/systemd/import-pubring.pgp", "/usr/lib/systemd/import-pubring.gpg"),
)
_SIGNATURES = (".gpg", ".asc")
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOR = b"-----BEGIN PGP "
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGEST = 64  # hexadecimal digits of SHA-256


class Trust(Record):
    """How a download is to be verified."""

    mode: str = ""  # one of MODES; "" for the best that the source is set up for
    keyring: str = ""  # of the signer; "" for systemd's
    limit: int = 0  # the most that it may unpack to, in bytes; 0 for what the disk has

    def check(self) -> None:
        """Refuse what is no mode.

        Raises:
            ConfigError: it is none.
        """
        if self.mode and self.mode not in MODES:
            raise ConfigError(f"--verify={self.mode}: must be one of {', '.join(MODES)}")


def keyrings(given: str) -> tuple[str, ...]:
    """Return the keyrings that count: the one given, or systemd's.

    Raises:
        NotFoundError: there is none.
    """
    for group in ((given,),) if given else _KEYRINGS:
        found = tuple(path for path in group if os.path.isfile(path))
        if found:
            return found
    where = given or " or ".join(path for group in _KEYRINGS for path in group)
    raise NotFoundError(
        f"There is no keyring {where}", "--keyring=FILE names one, --verify=checksum does without."
    )


def expected_digest(url: str, mode: str, keyring: str, job: Job) -> str:
    """Return the checksum that a file must have by what lies beside it, as hexadecimal SHA-256.

    Args:
        url: of the file.
        mode: "checksum", or "signature" to believe only a signed one.
        keyring: the signer's; "" for systemd's.
        job: under way.

    Raises:
        NotFoundError: there is no checksum, no signature or no keyring.
        PymachineError: a signature is not good; a server fails; interrupted.
        UnsupportedError: gpgv is not installed.
    """
    own, all_ = sibling(url, f"{file_name(url)}.sha256"), sibling(url, "SHA256SUMS")
    signed = mode == "signature"
    rings = keyrings(keyring) if signed else ()
    wanted = [own, all_]
    if signed:
        wanted += [f"{sums}{suffix}" for sums in (own, all_) for suffix in _SIGNATURES]
    job.progress("reading checksums and signatures", "")
    found = read_small(tuple(wanted), job)
    believed = not signed
    for sums in (own, all_):
        if sums not in found:
            continue
        text = found[sums]
        if signed:
            signature = next(
                (found[f"{sums}{s}"] for s in _SIGNATURES if f"{sums}{s}" in found), b""
            )
            if not signature and not text.startswith(_SIGNED):
                continue  # the other may be signed
            text = check_signature(text, signature, rings, job)
            believed = True
        digest = find_digest(text, file_name(url), alone=sums == own)
        if digest:
            return digest
    if believed or not any(sums in found for sums in (own, all_)):
        raise NotFoundError(
            f"Neither {file_name(own)} nor SHA256SUMS beside {url} has its checksum",
            "--verify=no does without; then only TLS protects it, if anything.",
        )
    raise NotFoundError(
        f"The checksum of {url} is not signed", "--verify=checksum is content with that."
    )


def find_digest(text: bytes, name: str, *, alone: bool) -> str:
    """Return the checksum of a file in a list as of sha256sum(1), also with --tag; "" if none.

    Args:
        text: the list.
        name: of the file.
        alone: whether the list is of this file only, and may name none.
    """
    for line in text.decode(errors="replace").splitlines():
        digest, _, rest = line.partition(" ")
        if line.startswith(f"SHA256 ({name}) = "):
            digest, rest = line.rpartition(" = ")[2], f" {name}"
        if len(digest) != _DIGEST or not _HEX.issuperset(digest):
            continue
        if rest in (f" {name}", f"*{name}") or (alone and not rest.strip()):
            return digest.lower()
    return ""


def digest_of(file: BufferedIOBase) -> str:
    """Return the SHA-256 of what can be read, hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: str, digest: str, url: str) -> None:
    """Refuse a file that is another than expected.

    Raises:
        PymachineError: its checksum differs.
    """
    with open(path, "rb") as file:
        found = digest_of(file)
    if found != digest:
        raise PymachineError(
            f"The checksum of {url} is wrong: it was tampered with, or damaged",
            f"Expected {digest}, found {found}.",
        )


def check_signature(text: bytes, signature: bytes, rings: tuple[str, ...], job: Job) -> bytes:
    """Return what was signed, if the signature is good and by a key of the keyrings.

    Args:
        text: the data; signed in itself if there is no signature.
        signature: detached, armored or not; b"" if there is none.
        rings: paths of keyrings, armored or not.
        job: under way.

    Raises:
        PymachineError: it is not.
        UnsupportedError: gpgv is not installed.
    """
    program = find_program("gpgv", package="gpgv")
    with tempfile.TemporaryDirectory(prefix="pymachine-", dir="/run") as directory:
        files = {"text": text, "signature": signature}
        names = [f"keyring{number}" for number in range(len(rings))]
        for name, ring in zip(names, rings, strict=True):
            with open(ring, "rb") as file:
                files[name] = dearmor(file.read())
        for name, data in files.items():
            with open(f"{directory}/{name}", "wb") as file:
                file.write(data)
        options = [word for name in names for word in ("--keyring", f"/pgp/{name}")]
        options += ["--homedir", "/pgp", "--status-fd", "2"]
        # What is signed in itself is taken from gpgv's output: there is nothing else in that.
        words = ["/pgp/signature", "/pgp/text"] if signature else ["--output", "-", "/pgp/text"]
        told, plain = _run((program, *options, *words), directory, job)
    states = {line.split()[1] for line in told if line.startswith("[GNUPG:] ")}
    if "GOODSIG" in states and not states & {"BADSIG", "ERRSIG"}:
        return text if signature else plain
    raise PymachineError(f"The signature of the checksums is not good: {_reason(states, told)}")


def _run(command: tuple[str, ...], directory: str, job: Job) -> tuple[tuple[str, ...], bytes]:
    tree = open_tree(directory, recursive=False)
    output = os.memfd_create("gpgv")
    try:
        set_attributes(tree, const.MOUNT_ATTR_RDONLY, recursive=False)
        tool = Tool(command=command, stdin=-1, stdout=output)
        confinement = job.start((tool,), World(places=(Place(name="pgp", mount=tree),)))
        try:
            told = follow(confinement, (), lambda: None, job.interruption)[0]
            status = confinement.statuses[0]
        finally:
            confinement.close()
        if status:  # whatever it said before
            told = tuple(line for line in told if "GOODSIG" not in line)
        os.lseek(output, 0, os.SEEK_SET)
        with open(output, "rb", closefd=False) as file:
            return told, file.read()
    finally:
        os.close(tree)
        os.close(output)


def _reason(states: set[str], told: tuple[str, ...]) -> str:
    for state, reason in (
        ("BADSIG", "it is of other data: they were tampered with"),
        ("NO_PUBKEY", "the signer's key is not in the keyring"),
        ("REVKEYSIG", "the signer's key was revoked"),
        ("EXPKEYSIG", "the signer's key has expired"),
        ("EXPSIG", "it has expired"),
    ):
        if state in states:
            return reason
    lines = [line for line in told if not line.startswith("[GNUPG:]")]
    return lines[-1].removeprefix("gpgv: ") if lines else "gpgv finds none"


def dearmor(data: bytes) -> bytes:
    """Return keys in binary form, as gpgv wants them; RFC 9580, "Forming ASCII Armor".

    Raises:
        UnsupportedError: the armor is damaged.
    """
    if not data.startswith(_ARMOR):
        return data
    keys, inside, text = b"", False, b""
    for line in data.splitlines():
        if line.startswith(_ARMOR):
            inside, text = False, b""
        elif line.startswith(b"-----END PGP "):
            try:
                keys += base64.b64decode(text, validate=True)
            except ValueError as error:
                raise UnsupportedError("The keyring's armor is damaged") from error
        elif not line.strip():
            inside = True
        elif inside and not line.startswith(b"="):  # that is the checksum
            text += line.strip()
    return keys
