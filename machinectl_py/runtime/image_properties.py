"""The properties of an image by name: those of org.freedesktop.machine1.Image, then our own."""

from __future__ import annotations

from machinectl_py.errors import PymachineError
from machinectl_py.images.limits import find_limit
from machinectl_py.images.listing import Image, disk_usage
from machinectl_py.images.machine_view import open_directory, open_machine
from machinectl_py.images.records import Machine, find_machine
from machinectl_py.runtime.inspect_os import os_release_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    Value = str | int | bool | tuple[str, ...] | None


def image_properties(image: Image) -> dict[str, Value]:
    """Return the properties; None is what nobody knows, or what there is not.

    Raises:
        PymachineError: it cannot be looked into.
        OSError: with the path.
    """
    machine = find_machine(image.name) if image.driver else None
    usage = image.usage if image.usage >= 0 else disk_usage(image.path)
    return {
        "Name": image.name,
        "Path": image.path,
        "Type": image.type,
        "ReadOnly": image.read_only,
        "CreationTimestamp": image.created,
        "ModificationTimestamp": image.modified,
        "Usage": usage,
        "Limit": find_limit(image.path),
        "UsageExclusive": usage if image.type == "overlay" else None,
        "LimitExclusive": None,
        "Image": image.image,
        "Driver": image.driver,
        "Layers": len(machine.layers) if machine else 0,
        "MachineID": machine.machine_id if machine else "",
        "Snapshots": image.snapshots,
        "Users": image.users,
        "OSPrettyName": _os_name(image, machine),
    }


def _os_name(image: Image, machine: Machine | None) -> str:
    """Return PRETTY_NAME of the system's os-release(5); "" if it has none."""
    try:
        with open_machine(machine) if machine else open_directory(image.path) as root:
            return os_release_in(root).get("PRETTY_NAME", "")
    except (PymachineError, OSError):  # it is none, or cannot be looked into
        return ""
