"""Commands run and machines booted, compared with systemd-nspawn and runc."""

from __future__ import annotations

import os

from tests.bench.measure import compare, milliseconds
from tests.bench.peers import NSPAWN, PYMACHINE, boot_nspawn, boot_ours, runc_bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

NAME = f"bench-{os.getpid()}"


def compare_run(root: Path) -> None:
    """Compare how long /bin/true takes, from nothing to nothing left."""
    ours = [*PYMACHINE, "run", "-D", root, "-M", NAME, "/bin/true"]
    nspawn = [*NSPAWN, "-D", root, "-M", NAME, "/bin/true"]
    compare(
        "run /bin/true, systemd-nspawn",
        0.5,
        lambda: milliseconds(ours),
        lambda: milliseconds(nspawn),
    )
    with runc_bundle(root) as bundle:
        runc = ["runc", "run", "--bundle", bundle, NAME]
        compare("run /bin/true, runc", 1.0, lambda: milliseconds(ours), lambda: milliseconds(runc))


def compare_boot(root: Path) -> None:
    """Compare how long an init takes until it is ready."""
    compare(
        "boot to READY=1, systemd-nspawn",
        0.9,
        lambda: boot_ours(root, NAME),
        lambda: boot_nspawn(root, NAME),
        rounds=9,
    )
