"""Services where no systemd manages the host: in a cgroup of their own below pymachine's."""

from __future__ import annotations

import os

from machinectl_py.errors import PymachineError
from machinectl_py.kernel import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.ports import ServiceRequest

_OWN_CGROUP = "pymachine"
_KILL_TIMEOUT = 10.0  # seconds
_SIGHUP = 1


class EmbeddedServices:
    """Starts daemons and ends them by their cgroups."""

    def start(self, request: ServiceRequest) -> None:
        """Start it, or have it read its files.

        Raises:
            PymachineError: it does not start; with its own last words.
        """
        cgroup = _cgroup(request.name)
        if cgroupfs.populated(cgroup):
            for pid in cgroupfs.pids(cgroup):
                _hang_up(pid)
            return
        os.makedirs(cgroup, 0o755, exist_ok=True)
        import subprocess

        # In place of preexec_fn, so that the child may be a vfork(2).
        join = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
        done = subprocess.run(
            ["/bin/sh", "-c", join, cgroup, *request.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode:
            self.stop(request.name)
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = said[-1].strip() if said else f"exit status {done.returncode}"
            raise PymachineError(f"{request.command[0]} does not start: {why}")

    def stop(self, name: str) -> None:
        """Kill it.

        Raises:
            PymachineError: it does not die.
        """
        cgroup = _cgroup(name)
        if not os.path.isdir(cgroup):
            return
        cgroupfs.kill(cgroup)
        if not cgroupfs.wait_empty(cgroup, _KILL_TIMEOUT):
            raise PymachineError(f"Processes in {cgroup} do not die")
        cgroupfs.remove(cgroup)
        try:
            os.rmdir(os.path.dirname(cgroup))
        except OSError:  # machines are in it
            pass


def _hang_up(pid: int) -> None:
    try:
        os.kill(pid, _SIGHUP)
    except ProcessLookupError:
        pass


def _cgroup(name: str) -> str:
    """Return the cgroup of a service; its suffix keeps its name from that of a machine's."""
    return f"{cgroupfs.find_cgroup2()}/{_OWN_CGROUP}/{name}.service"
