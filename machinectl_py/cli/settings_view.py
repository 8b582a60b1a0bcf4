"""The settings of a machine as a `.nspawn` file: for `show --settings` and `plan --settings`."""

from __future__ import annotations

import sys

from machinectl_py.config.render import lines
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec


def print_settings(spec: MachineSpec, origins: dict[str, str] | None = None) -> None:
    """Print the settings that make a spec; before one that was given, a comment with its origin."""
    section = field = ""
    for its_section, key, text, its_field in lines(spec, tuple(CAPABILITY_NAMES)):
        if its_section != section:
            sys.stdout.write(("\n" if section else "") + f"[{its_section}]\n")
            section = its_section
        if its_field != field and origins and its_field in origins:
            sys.stdout.write(f"# {origins[its_field]}\n")
        field = its_field
        sys.stdout.write(f"{key}={text}\n")
