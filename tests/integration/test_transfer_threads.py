"""Programs that are started when threads have just ended, as after each download."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root makes namespaces")
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from machinectl_py.images.interruption import Interruption
from machinectl_py.images.transfer.confine import Confinement, Tool, World
from machinectl_py.images.transfer.download import in_threads
from machinectl_py.images.transfer.flow import follow
from machinectl_py.images.transfer.job import Job

def act(stop):
    [bytearray(1000 + 100 * number) for number in range(300)]

tool = Tool(command=("/bin/true",), stdin=-1, stdout=-1)
with Interruption() as interruption:
    job = Job(print, interruption, -1)
    for _ in range(200):
        in_threads((act,) * 6, job, lambda: None)
        confinement = Confinement((tool,), World())
        follow(confinement, (), lambda: None, interruption)
        confinement.close()
        assert confinement.statuses == {0: 0}
"""


def test_a_thread_that_is_being_taken_down_locks_nobody_out():
    # In a process without the test runner's own threads; it hung in one of fifty rounds or so.
    command = ["/usr/bin/python3", "-SI", "-c", SCRIPT, Path(__file__).parents[2]]
    subprocess.run(command, check=True, timeout=120, stdout=sys.stderr)
