"""Labels in a spec; apart, as the state of a machine has them, which every verb reads."""

from __future__ import annotations

from machinectl_py.record import Record


class LabelSpec(Record):
    """Labels of security modules; "" sets none."""

    selinux: str = ""  # of the processes
    selinux_apifs: str = ""  # of the API file systems
    apparmor: str = ""  # profile of the processes
