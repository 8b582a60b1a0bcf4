"""What the custom mounts of a machine find on this host, probed before planning."""

from __future__ import annotations

import os

from machinectl_py.config.spec import BindMount, OverlayMount
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.config.spec import MachineSpec


class MountFacts(Record):
    """The host as far as mounts depend on it."""

    token: str = ""  # random: a part of the names of what is made for this machine alone
    missing: tuple[str, ...] = ()  # sources of the spec that this host does not have
    files: tuple[str, ...] = ()  # those that are no directories


def probe_mounts(spec: MachineSpec) -> MountFacts:
    """Look at what the mounts of a spec want to show."""
    sources = {path for path in _host_paths(spec) if path and not path.startswith("+")}
    missing = tuple(sorted(path for path in sources if not os.path.exists(path)))
    files = {path for path in sources if not os.path.isdir(path)}
    return MountFacts(
        token=os.urandom(8).hex(),
        missing=missing,
        files=tuple(sorted(files.difference(missing))),
    )


def _host_paths(spec: MachineSpec) -> Iterable[str]:
    for mount in spec.mounts:
        if isinstance(mount, BindMount):
            yield mount.source
        elif isinstance(mount, OverlayMount):
            yield from (*mount.lower, mount.upper)
