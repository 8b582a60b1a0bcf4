"""`pymachine images`: images and machines, in the columns of `machinectl list-images`."""

from __future__ import annotations

import sys

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
    size,
    terminal_width,
    timestamp,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.images.listing import Image

USAGE = "images [OPTION…]"
SUMMARY = "List images, and the machines that were made of them"
DETAILS = """\
Of a machine, TYPE "overlay" means that it is a layer over its image, FROM is that image, and
USAGE what it has written. USED BY are the machines that stand on an image, which cannot change
then. To add up the USAGE of directories takes its time: 'image-status' does so."""
EXAMPLE = "pymachine images --json=pretty"
OPTIONS = (
    Option(name="--all", short="-a", help="list hidden ones too, whose name begins with a dot"),
    Option(name="--full", short="-l", help="do not cut lines at the terminal's width"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_HEADS = ("NAME", "TYPE", "RO", "USAGE", "CREATED", "MODIFIED", "FROM", "USED BY")


def run(arguments: Arguments) -> int:
    """Print the listing."""
    if arguments.words:
        raise UsageError("'images' takes no arguments", "'image-status NAME' shows one of them.")
    from machinectl_py.images.listing import all_images

    images = all_images(hidden=arguments.flag("all"))
    mode = json_mode(arguments)
    if mode:
        print_json([data_of(image) for image in images], mode)
        return 0
    legend = not arguments.flag("no-legend")
    if images:
        width = 0 if arguments.flag("full") else terminal_width()
        print_table(_HEADS, [_row(image) for image in images], legend=legend, width=width)
    if legend:
        sys.stdout.write(f"\n{len(images)} images listed.\n" if images else "No images.\n")
    return 0


def data_of(image: Image) -> dict[str, object]:
    """Return an image as JSON has it: machinectl's keys, then ours."""
    return {
        "name": image.name,
        "type": image.type,
        "ro": image.read_only,
        "usage": image.usage if image.usage >= 0 else None,
        "created": image.created or None,
        "modified": image.modified,
        "path": image.path,
        "driver": image.driver,
        "from": image.image,
        "users": list(image.users),
        "snapshots": list(image.snapshots),
    }


def _row(image: Image) -> tuple[str, ...]:
    return (
        image.name,
        image.type,
        "yes" if image.read_only else "no",
        size(image.usage) if image.usage >= 0 else "",
        timestamp(image.created) if image.created else "",
        timestamp(image.modified),
        image.image,
        ", ".join(image.users),
    )
