"""`pymachine import-fs`: make an image of a directory."""

from __future__ import annotations

from machinectl_py.cli.transfers import MAKE, placing_of, shown, tell_made, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "import-fs DIRECTORY [NAME] [OPTION…]"
SUMMARY = "Make an image of a directory"
DETAILS = """
Copies a tree as it is, with owners, times, hard links, holes and extended attributes; what is
mounted in it is left out. Of a subvolume of btrfs it takes a snapshot where it can, and on file
systems that can share data, files take no room twice. The image is called NAME, or as the
directory.
"""
EXAMPLE = "pymachine import-fs /srv/tree web"
COMMAND = -1
OPTIONS = MAKE


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's directory."""
    path, name = two_words(arguments, "import-fs", "a DIRECTORY", USAGE)
    from machinectl_py.images.transfer.imports import import_fs

    with shown(arguments, f"Importing {path}") as progress:
        made = import_fs(path, name, progress, placing_of(arguments))
    tell_made(arguments, made, [])
    return 0
