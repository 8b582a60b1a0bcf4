"""What of a plan's security depends on this kernel: its architecture and its security modules."""

from __future__ import annotations

import os

from machinectl_py.kernel.libc import MACHINE
from machinectl_py.record import Record


class SecurityFacts(Record):
    """The host's architecture, and which security modules label processes here."""

    machine: str = MACHINE  # as uname(2) has it, whatever the personality
    release: str = ""  # of the kernel
    selinux: bool = False  # enabled: selinuxfs is mounted
    apparmor: bool = False  # enabled


def probe_security() -> SecurityFacts:
    """Probe the kernel."""
    return SecurityFacts(
        release=os.uname().release, selinux=_has_selinux(), apparmor=_has_apparmor()
    )


def _has_selinux() -> bool:
    return os.path.exists("/sys/fs/selinux/enforce")


def _has_apparmor() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="utf-8") as file:
            return file.read().strip() == "Y"
    except OSError:
        return False
