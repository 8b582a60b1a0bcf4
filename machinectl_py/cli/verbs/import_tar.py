"""`pymachine import-tar`: make an image of an archive."""

from __future__ import annotations

from machinectl_py.cli.transfers import LIMIT, MAKE, placing_of, shown, tell_made, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "import-tar FILE|- [NAME] [OPTION…]"
SUMMARY = "Make an image of an archive of a tree"
DETAILS = """
FILE is a tar archive, also compressed with gzip, bzip2, xz or zstd, which is seen by its content;
"-" is standard input. The image is called NAME, or as the file without its suffixes, and appears
when it is complete.

Owners (as numbers), times, hard links, holes, device nodes and extended attributes, so also ACLs
and capabilities, are as in the archive. The archive is unpacked where nothing but its own tree can
be written, and a twentieth of the file system, at most 1 GB, is left free.
"""
EXAMPLE = "pymachine import-tar web.tar.zst"
COMMAND = -1
OPTIONS = (LIMIT, *MAKE)


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's directory."""
    path, name = two_words(arguments, "import-tar", "a FILE, or '-' and a NAME", USAGE)
    from machinectl_py.images.transfer.flow import parse_size
    from machinectl_py.images.transfer.imports import import_tar

    limit, warnings = parse_size(arguments.text("limit")), list[str]()
    with shown(arguments, f"Importing {path}") as progress:
        made = import_tar(
            path,
            name,
            progress,
            limit=limit,
            warn=warnings.append,
            placing=placing_of(arguments),
        )
    tell_made(arguments, made, warnings)
    return 0
