"""The packaged units that take a snapshot each day, and keep the last of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.hosts.apart import systemd_runs
from tests.integration import pools

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not systemd_runs(), reason="needs systemd as PID 1"),
]
UNITS = Path("/run/systemd/system")


@pytest.fixture
def units(pristine_tree):
    """The units, run from the source tree, and an image."""
    names = ("pymachine-snapshot@.service", "pymachine-snapshot@.timer")
    command = f"{REPOSITORY}/packaging/pymachine"
    try:
        with pools.pool("tmpfs"):
            pools.put_image(pristine_tree, "debian", "tmpfs")
            for name in names:
                text = Path(REPOSITORY, "units", name).read_text()
                (UNITS / name).write_text(text.replace("=/usr/bin/pymachine", f"={command}"))
            subprocess.run(["systemctl", "daemon-reload"], check=True)
            yield
            for name in names:
                (UNITS / name).unlink()
            subprocess.run(["systemctl", "daemon-reload"], check=True)
    finally:
        subprocess.run(["systemctl", "reset-failed", "--quiet"], check=False)


def test_snapshots_are_taken_and_thinned_out(units, pymachine, machine):
    assert pymachine("boot", "debian", "-M", machine).returncode == 0
    for _ in range(9):
        subprocess.run(["systemctl", "start", f"pymachine-snapshot@{machine}.service"], check=True)
        time.sleep(1)
    rows = json.loads(pymachine("snapshots", machine, "--json=short").stdout)
    assert len(rows) == 7
    assert all(row["running"] for row in rows)
    timer = f"pymachine-snapshot@{machine}.timer"
    subprocess.run(["systemctl", "start", timer], check=True)
    shown = subprocess.run(["systemctl", "list-timers", timer], check=True, capture_output=True)
    assert timer in shown.stdout.decode()
    subprocess.run(["systemctl", "stop", timer], check=True)
    assert pymachine("terminate", machine).returncode == 0
    assert pymachine("remove", machine).returncode == 0
