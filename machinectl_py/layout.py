"""Where pymachine keeps what, and as what it is known: what more than one layer knows."""

from __future__ import annotations

SOURCE = __file__.rpartition("/machinectl_py/")[0]  # the directory that the package lies in
# As we register machines with systemd-machined.
SERVICE, CLASS = "pymachine", "container"
RUN_DIR = "/run/pymachine"
MACHINES_DIR = f"{RUN_DIR}/machines"
LOCK_DIR = f"{RUN_DIR}/locks"
# Images on their way in or out.
TRANSFERS_DIR = f"{RUN_DIR}/transfers"
# systemd-nspawn's locks of roots, shared with it so that no root is booted twice.
ROOT_LOCK_DIR = "/run/systemd/nspawn/locks"
# Where systemd-machined puts what `machinectl bind` is to show inside: systemd-nspawn's too.
TUNNELS_DIR = "/run/systemd/nspawn/propagate"
# Where systemd-ssh-proxy(1) looks for the sockets of machines.
UNIX_EXPORT_DIR = "/run/systemd/nspawn/unix-export"
# Idem of ranges of ids, named by the first id.
ID_LOCK_DIR = "/run/systemd/nspawn-uid"
# What machines are made of; docs/design/store.md.
STORE_DIR = "/var/lib/pymachine"
RECORDS_DIR = f"{STORE_DIR}/machines"
LAYERS_DIR = f"{STORE_DIR}/layers"
REMOVED_DIR = f"{STORE_DIR}/tmp"
# Managed networks: definitions, leases, and what is of those that are up.
NETWORK_DEFINITIONS_DIR = "/etc/pymachine/networks"
NETWORK_LEASES_DIR = f"{STORE_DIR}/networks"
NETWORKS_DIR = f"{RUN_DIR}/networks"


def machine_dir(name: str) -> str:
    """Return the directory of a machine's state."""
    return f"{MACHINES_DIR}/{name}"


def lock_path(name: str) -> str:
    """Return the lock file of a machine."""
    return f"{LOCK_DIR}/{name}"


def tunnel_dir(name: str) -> str:
    """Return the directory whose mounts a machine sees in /run/host/incoming."""
    return f"{TUNNELS_DIR}/{name}"


def unix_export_dir(name: str) -> str:
    """Return the directory in which the host finds a machine's sockets."""
    return f"{UNIX_EXPORT_DIR}/{name}"


def record_path(name: str) -> str:
    """Return the file that says what a machine is made of."""
    return f"{RECORDS_DIR}/{name}.json"


def layer_path(identifier: str) -> str:
    """Return the directory that holds a layer."""
    return f"{LAYERS_DIR}/{identifier}"
