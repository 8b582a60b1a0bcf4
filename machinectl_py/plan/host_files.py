"""What of the host's own configuration a plan depends on: names, time zone, resolver, users."""

from __future__ import annotations

import os

from machinectl_py.record import Record

RESOLVED_STUB = "/run/systemd/resolve/stub-resolv.conf"  # systemd-resolved.service(8)
_STUB_ADDRESS = "3500007F:0035"  # 127.0.0.53:53 in /proc/net/udp, little endian
_STUB_ADDRESS_BIG_ENDIAN = "7F000035:0035"


class HostFiles(Record):
    """Files of the host, as they were when the machine was planned."""

    resolved_stub: bool = False  # systemd-resolved has its file for stubs, and listens
    resolv_conf: bool = False  # there is an /etc/resolv.conf
    localtime: str = ""  # what /etc/localtime links to; "" without one
    localtime_file: bool = False  # /etc/localtime is a file, no link
    machine_id: str = ""  # of the host; "" if it has none
    journal_remote: str = ""  # where systemd-journal-remote(8) is installed


def probe_files() -> HostFiles:
    """Look at the host's files; what cannot be read counts as missing."""
    localtime = ""
    try:
        localtime = os.readlink("/etc/localtime")
    except OSError:
        pass
    return HostFiles(
        resolved_stub=os.path.exists(RESOLVED_STUB) and _stub_listens(),
        resolv_conf=os.path.exists("/etc/resolv.conf"),
        localtime=localtime,
        localtime_file=not localtime and os.path.isfile("/etc/localtime"),
        machine_id=host_machine_id(),
        journal_remote=_find_journal_remote(),
    )


def host_machine_id() -> str:
    """Return the host's machine ID, "" if it has none."""
    return _read("/etc/machine-id").strip()


def _find_journal_remote() -> str:
    """Return the receiver's path: by $PATH, else where systemd keeps its programs."""
    places = [*os.environ.get("PATH", "").split(":"), "/usr/lib/systemd", "/lib/systemd"]
    for place in filter(None, places):
        path = f"{place}/systemd-journal-remote"
        if os.access(path, os.X_OK):
            return path
    return ""


def _stub_listens() -> bool:
    """Say whether the stub resolver's address is taken, as its configuration may turn it off."""
    addresses = {line.split()[1] for line in _read("/proc/net/udp").splitlines()[1:]}
    return not addresses.isdisjoint({_STUB_ADDRESS, _STUB_ADDRESS_BIG_ENDIAN})


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
