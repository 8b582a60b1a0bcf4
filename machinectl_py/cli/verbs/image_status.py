"""`pymachine image-status`: what there is to know of images."""

from __future__ import annotations

import sys
import time

from machinectl_py.cli.render import (
    JSON_OPTIONS,
    json_mode,
    print_json,
    printable,
    size,
    timespan,
    timestamp,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from machinectl_py.cli.parse import Arguments
    from machinectl_py.runtime.image_properties import Value

USAGE = "image-status [NAME…] [OPTION…]"
SUMMARY = "Show what there is to know of images and machines, or of their place"
DETAILS = """\
In the manner of machinectl. Usage is added up, which takes a moment for a large directory; of a
machine that is a layer over its image it is what the machine has written. Without a name it tells
of the place where they are kept."""
EXAMPLE = "pymachine image-status debian"
OPTIONS = (*JSON_OPTIONS,)
COMMAND = -1
_LABEL_WIDTH = 16  # as of `status`


def run(arguments: Arguments) -> int:
    """Print each one's status."""
    if not arguments.words:
        return _pool(json_mode(arguments))
    from machinectl_py.images.listing import find_image
    from machinectl_py.runtime.image_properties import image_properties

    shown = [image_properties(find_image(name)) for name in arguments.words]
    if mode := json_mode(arguments):
        print_json(shown, mode)
        return 0
    for number, properties in enumerate(shown):
        if number:
            sys.stdout.write("\n")
        sys.stdout.write(f"{properties['Name']}\n")
        for label, text in _fields(properties):
            if text:
                sys.stdout.write(f"{label:>{_LABEL_WIDTH}}: {printable(text)}\n")
    return 0


def _pool(mode: str) -> int:
    from machinectl_py.images.listing import pool_properties

    found = pool_properties()
    if mode:
        print_json([found], mode)
        return 0
    fields = {
        "Path": str(found["PoolPath"]),
        "Usage": size(int(str(found["PoolUsage"]))),
        "Limit": size(int(str(found["PoolLimit"]))),
    }
    for label in ("Images", "Machines"):
        names = found[label]
        fields[label] = " ".join(names) if isinstance(names, tuple) else ""
    for label, text in fields.items():
        if text:
            sys.stdout.write(f"{label:>{_LABEL_WIDTH}}: {printable(text)}\n")
    return 0


def _fields(properties: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    """Yield labels and texts in machinectl's order, ours after them."""
    yield "Type", str(properties["Type"])
    yield "Path", str(properties["Path"])
    yield "OS", str(properties["OSPrettyName"])
    yield "RO", "read-only" if properties["ReadOnly"] else "writable"
    for label, name in (("Created", "CreationTimestamp"), ("Modified", "ModificationTimestamp")):
        moment = int(str(properties[name] or 0))
        ago = max(time.time_ns() // 1000 - moment, 0)
        yield label, f"{timestamp(moment)}; {timespan(ago)} ago" if moment else ""
    for label in ("Usage", "Limit"):
        amount = properties[label]
        yield label, size(int(str(amount))) if amount is not None else ""
    yield "Image", str(properties["Image"])
    yield "Driver", str(properties["Driver"])
    for label in ("Snapshots", "Users"):
        found = properties[label]
        yield label, " ".join(found) if isinstance(found, tuple) else ""
