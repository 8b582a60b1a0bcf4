"""`pymachine export-tar`: write an image as an archive."""

from __future__ import annotations

from machinectl_py.cli.transfers import FORMAT, QUIET, shown, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "export-tar NAME [FILE|-] [OPTION…]"
SUMMARY = "Write an image that is a tree as an archive"
DETAILS = """
FILE is compressed as its suffix says, .gz, .bz2, .xz or .zst, and appears when it is complete;
without one, or with "-", the archive goes to standard output. The same tree gives the same file.

Owners, times to the nanosecond, hard links, holes, device nodes and extended attributes, so also
ACLs and capabilities, are kept. A tree that belongs to a range of ids, as that of a machine with a
user namespace, is written with ids from 0 on. What is mounted in it is left out.
"""
EXAMPLE = "pymachine export-tar web web.tar.zst"
COMMAND = -1
OPTIONS = (FORMAT, QUIET)


def run(arguments: Arguments) -> int:
    """Run the verb."""
    name, path = two_words(arguments, "export-tar", "a NAME", USAGE)
    from machinectl_py.images.transfer.exports import export_tar

    with shown(arguments, f"Exporting {name}") as progress:
        export_tar(name, path or "-", progress, format_=arguments.text("format"))
    return 0
