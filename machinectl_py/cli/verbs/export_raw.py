"""`pymachine export-raw`: write an image as a disk image."""

from __future__ import annotations

from machinectl_py.cli.transfers import FORMAT, QUIET, shown, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "export-raw NAME [FILE|-] [OPTION…]"
SUMMARY = "Write an image that is a disk image to a file"
DETAILS = """
FILE is compressed as its suffix says, .gz, .bz2, .xz or .zst, and appears when it is complete;
without one, or with "-", it goes to standard output. Holes stay holes in a file that is not
compressed.
"""
EXAMPLE = "pymachine export-raw web web.raw.zst"
COMMAND = -1
OPTIONS = (FORMAT, QUIET)


def run(arguments: Arguments) -> int:
    """Run the verb."""
    name, path = two_words(arguments, "export-raw", "a NAME", USAGE)
    from machinectl_py.images.transfer.exports import export_raw

    with shown(arguments, f"Exporting {name}") as progress:
        export_raw(name, path or "-", progress, format_=arguments.text("format"))
    return 0
