"""Processes, as the kernel shows them."""

from __future__ import annotations

import subprocess
import sys

# A subreaper's, lest a child of ours be left to PID 1.
ORPHAN = """
import ctypes, os, time
from machinectl_py.kernel.process import fork_orphan
ctypes.CDLL(None).prctl(36, 1)
reaper = os.getpid()
between = os.fork()
if between == 0:
    told, tell = os.pipe()
    pid = fork_orphan()
    if pid == 0:
        while os.getppid() != reaper:
            time.sleep(0.001)
        os.write(tell, f"{os.getpid()} {os.getppid()}".encode())
        os._exit(7)
    assert os.read(told, 64).decode() == f"{pid} {reaper}"
    os._exit(0)
ended = [os.wait(), os.wait()]
assert sorted(os.waitstatus_to_exitcode(status) for _, status in ended) == [0, 7], ended
"""


def test_an_orphan_is_the_subreapers_child_from_the_first():
    subprocess.run([sys.executable, "-c", ORPHAN], check=True, timeout=20)
