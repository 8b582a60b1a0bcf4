"""`pymachine pull-raw`: make an image of a disk image on a server."""

from __future__ import annotations

from machinectl_py.cli.transfers import (
    HASHES,
    MAKE,
    PULL,
    download_only,
    shown,
    tell_made,
    trust_of,
    two_words,
    wishes_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "pull-raw URL [NAME] [OPTION…]"
SUMMARY = "Download a disk image and make an image of it"
DETAILS = """
URL begins with https://, http:// or file://. The image is called NAME, or as the file without its
suffixes. A download that breaks off is taken up again, also by the next try.
With "-" for NAME there is no image: the download is verified and kept for the next pull of URL.

Before anything is unpacked, the file is verified by its checksum, and that by a signature: of
FILE.sha256 or else of SHA256SUMS beside it, each signed in itself or by a file with .gpg or .asc
added. The keys that count are in /etc/systemd/import-pubring.gpg, or else in
/usr/lib/systemd/import-pubring.gpg.

What lies beside the file, under its name with .nspawn, .roothash, .roothash.p7s or .verity instead
of the suffixes, is taken along and verified by the same rules; systemd.nspawn(5) tells which
settings are believed.
"""
EXAMPLE = "pymachine pull-raw --verify=checksum https://images.example.org/web.raw.xz web"
COMMAND = -1
OPTIONS = (*PULL, *HASHES, *MAKE)


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's path."""
    url, name = two_words(arguments, "pull-raw", "a URL", USAGE)
    if name == "-":
        return download_only("raw", url, arguments)
    from machinectl_py.images.transfer.pulls import pull_url

    trust, wishes, warnings = trust_of(arguments), wishes_of(arguments), list[str]()
    with shown(arguments, f"Pulling {url}") as progress:
        made = pull_url(
            "raw", url, name, progress, trust=trust, warn=warnings.append, wishes=wishes
        )
    tell_made(arguments, made, warnings)
    return 0
