"""`pymachine import-raw`: make an image of a disk image."""

from __future__ import annotations

from machinectl_py.cli.transfers import LIMIT, MAKE, placing_of, shown, tell_made, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "import-raw FILE|- [NAME] [OPTION…]"
SUMMARY = "Make an image of a disk image"
DETAILS = """
FILE is a raw disk image, or one of qcow2 where qemu-img(1) is installed, also compressed with
gzip, bzip2, xz or zstd, which is seen by its content; "-" is standard input. The image is called
NAME, or as the file without its suffixes: /var/lib/machines/NAME.raw. It appears when it is
complete.

Holes stay holes, and blocks of zeros in a stream become some. On file systems that can share
data, a file that is not compressed takes no room twice.
"""
EXAMPLE = "pymachine import-raw web.raw.xz"
COMMAND = -1
OPTIONS = (LIMIT, *MAKE)


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's path."""
    path, name = two_words(arguments, "import-raw", "a FILE, or '-' and a NAME", USAGE)
    from machinectl_py.images.transfer.flow import parse_size
    from machinectl_py.images.transfer.imports import import_raw

    limit = parse_size(arguments.text("limit"))
    with shown(arguments, f"Importing {path}") as progress:
        made = import_raw(path, name, progress, limit=limit, placing=placing_of(arguments))
    tell_made(arguments, made, [])
    return 0
