"""What the verbs that bring images in and out have in common: options, progress, messages."""

from __future__ import annotations

import os
from contextlib import contextmanager

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machinectl_py.cli.parse import Arguments
    from machinectl_py.images.aside import Placing
    from machinectl_py.images.transfer.download import Keep
    from machinectl_py.images.transfer.pulls import Wishes
    from machinectl_py.images.transfer.verify import Trust

    Progress = Callable[[str, str], None]

_WARNINGS = 10
QUIET = Option(name="--quiet", short="-q", help="show no progress")
LIMIT = Option(
    name="--limit", value="SIZE", help="refuse what unpacks to more: bytes, or with K, M, G, T"
)
FORMAT = Option(
    name="--format",
    value="FORMAT",
    choices=("uncompressed", "gzip", "bzip2", "xz", "zstd"),
    help="compress so, whatever the file's suffix: uncompressed, gzip, bzip2, xz, zstd",
)

VERIFY = Option(
    name="--verify",
    value="MODE",
    choices=("no", "checksum", "signature"),
    help="believe what was downloaded: no, by checksum, by signature (the default)",
)
KEYRING = Option(name="--keyring", value="FILE", help="the signer's keys, instead of systemd's")
FORCE = Option(
    name="--force", help="replace an image of this name, which goes when the new one is whole"
)
READ_ONLY = Option(name="--read-only", help="mark the image read-only")
KEEP_DOWNLOAD = Option(
    name="--keep-download",
    value="BOOL",
    help="keep the downloaded file for the next pull; 'clean' removes it (default: no)",
)
SETTINGS = Option(
    name="--settings", value="BOOL", help="take NAME.nspawn along, if it is there (default: yes)"
)
HASHES = (
    Option(name="--roothash", value="BOOL", help="take NAME.roothash along, if it is there (idem)"),
    Option(name="--roothash-signature", value="BOOL", help="take NAME.roothash.p7s along (idem)"),
    Option(name="--verity", value="BOOL", help="take NAME.verity along (idem)"),
)
# What each verb has that makes an image, and each that downloads one by its URL.
MAKE = (FORCE, READ_ONLY, QUIET)
PULL = (VERIFY, KEYRING, LIMIT, KEEP_DOWNLOAD, SETTINGS)
_COMPANIONS = {
    "settings": ".nspawn",
    "roothash": ".roothash",
    "roothash-signature": ".roothash.p7s",
    "verity": ".verity",
}


def two_words(arguments: Arguments, verb: str, first: str, usage: str) -> tuple[str, str]:
    """Return the words of a verb that takes one or two; "" for a second that is not there.

    Raises:
        UsageError: there are more, or none.
    """
    if not 1 <= len(arguments.words) <= 2:
        raise UsageError(f"{verb} needs {first}", f"Usage: pymachine {usage}")
    return arguments.words[0], arguments.words[1] if len(arguments.words) > 1 else ""


def download_only(kind: str, url: str, arguments: Arguments) -> int:
    """Have a download kept, and no image made of it; print where it is.

    Raises:
        UsageError: an option says what is to become of the image.
        PymachineError: it cannot be downloaded, or is not what was signed.
    """
    from machinectl_py.images.transfer.pulls import keep_url

    for name in ("force", "read-only", *_COMPANIONS):
        if arguments.given(name):
            raise UsageError(f"--{name} means nothing where no image is made")
    if arguments.given("keep-download") and not _boolean(arguments, "keep-download", default=True):
        raise UsageError("Without an image, the download is all there is: --keep-download=no")
    trust = trust_of(arguments)
    with shown(arguments, f"Downloading {url}") as progress:
        path = keep_url(kind, url, progress, trust=trust)
    print(path)  # noqa: T201
    if not arguments.flag("quiet"):
        os.write(2, f"Make an image of it: pymachine pull-{kind} {url}\n".encode())
    return 0


def trust_of(arguments: Arguments) -> Trust:
    """Return how a download is to be verified.

    Raises:
        ConfigError: the limit is no size.
    """
    from machinectl_py.images.transfer.flow import parse_size
    from machinectl_py.images.transfer.verify import Trust

    return Trust(
        mode=arguments.text("verify"),
        keyring=arguments.text("keyring"),
        limit=parse_size(arguments.text("limit")),
    )


def placing_of(arguments: Arguments) -> Placing:
    """Return how an image is to take its name."""
    from machinectl_py.images.aside import Placing

    return Placing(replaces=arguments.flag("force"), read_only=arguments.flag("read-only"))


def wishes_of(arguments: Arguments) -> Wishes:
    """Return what is to become of a download.

    Raises:
        UsageError: a value is no truth value.
    """
    from machinectl_py.images.transfer.pulls import Wishes

    beside = (s for word, s in _COMPANIONS.items() if _boolean(arguments, word, default=True))
    keep: Keep = "yes" if _boolean(arguments, "keep-download", default=False) else "no"
    return Wishes(
        placing=placing_of(arguments),
        beside=tuple(beside),
        keep=keep if arguments.given("keep-download") else "",
    )


def _boolean(arguments: Arguments, name: str, *, default: bool) -> bool:
    from machinectl_py.config.values import boolean

    if not arguments.given(name):
        return default
    try:
        return boolean(arguments.text(name))
    except ValueError as error:
        raise UsageError(f"--{name}={arguments.text(name)}: must be yes or no") from error


@contextmanager
def shown(arguments: Arguments, title: str) -> Iterator[Progress]:
    """Give what shows progress on standard error, and take it away at the end."""
    from machinectl_py.cli.progress import ProgressLine

    line = ProgressLine(title)
    try:
        yield _say_nothing if arguments.flag("quiet") else line
    finally:
        line.clear()


def tell_made(arguments: Arguments, path: str, warnings: list[str]) -> None:
    """Print where an image is, and on standard error what is not as it should be, and what next."""
    print(path)  # noqa: T201
    print_warnings(warnings)
    if not arguments.flag("quiet"):
        name = os.path.basename(path).removesuffix(".raw")
        os.write(2, f"Start it: pymachine boot {name}\n".encode())


def print_warnings(warnings: list[str]) -> None:
    """Print the first few warnings on standard error, and how many more there are."""
    told = [f"warning: {text}" for text in warnings[:_WARNINGS]]
    if len(warnings) > _WARNINGS:
        told.append(f"warning: and {len(warnings) - _WARNINGS} more")
    os.write(2, "".join(f"{line}\n" for line in told).encode(errors="surrogateescape"))


def _say_nothing(_phase: str, _detail: str) -> None:
    pass
