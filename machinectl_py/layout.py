"""Where pymachine keeps what: the paths that more than one layer knows."""

from __future__ import annotations

RUN_DIR = "/run/pymachine"
MACHINES_DIR = f"{RUN_DIR}/machines"
LOCK_DIR = f"{RUN_DIR}/locks"
# systemd-nspawn's locks of roots, shared with it so that no root is booted twice.
ROOT_LOCK_DIR = "/run/systemd/nspawn/locks"


def machine_dir(name: str) -> str:
    """Return the directory of a machine's state."""
    return f"{MACHINES_DIR}/{name}"


def lock_path(name: str) -> str:
    """Return the lock file of a machine."""
    return f"{LOCK_DIR}/{name}"
