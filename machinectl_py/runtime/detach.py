"""The step from building to watching: execve into the minimal interpreter, same PID."""

from __future__ import annotations

import os
import sys

from machinectl_py.codec import encode
from machinectl_py.kernel import process
from machinectl_py.kernel.terminal import open_slave
from machinectl_py.layout import SOURCE, machine_dir
from machinectl_py.plan.context import held
from machinectl_py.plan.steps.users import lock_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from machinectl_py.runtime.supervisor import Build


def watch(build: Build, *, log: int) -> NoReturn:
    """Become `runtime/watch.py` for the machine that `build` has built.

    Args:
        build: with all slots of a background machine.
        log: descriptor that gets a copy of the console, or -1.
    """
    slots = build.context.slots
    launcher = build.walk.peers.get("launcher")
    settings = {name: slots.get(name, -1) for name in _KEPT}
    settings |= {
        "name": build.spec.name,
        "directory": machine_dir(build.spec.name),
        "leader": slots["leader"],
        "launcher": launcher.socket.fileno() if launcher else -1,
        "slave": -1,
        "log": log,
        "kill-signal": build.spec.payload.kill_signal,
        # Only in a unit's own cgroup does its manager believe us.
        "caller": int(build.facts.manager == "unit"),
        "path": SOURCE,
    }
    if "console" in slots:
        # With a slave of ours open the master is never hung up, whatever the machine closes.
        settings["slave"] = open_slave(build.context.number("console"))
        os.set_blocking(build.context.number("console"), False)
    # What else our caller left open is not ours to keep, but what it passes on.
    process.close_range(3 + build.facts.listen_fds, on_exec=True)
    kept = [settings[name] for name in (*_KEPT, "launcher", "slave", "log")]
    for fd in (*kept, *held(slots).values()):
        if isinstance(fd, int) and fd >= 0:
            os.set_inheritable(fd, True)
    for fd in lock_descriptors(str(slots.get("id-locks", ""))):
        os.set_inheritable(fd, True)
    code = f"import sys;sys.path.insert(0,{SOURCE!r});"
    code += "from machinectl_py.runtime.watch import main;main()"
    os.execv(
        sys.executable,
        [sys.executable, "-SI", "-c", code, encode(settings | {"held": held(slots)})],
    )


_KEPT = (
    *("lock", "root-lock", "notify", "control", "console", "kmsg", "leader-pidfd"),
    "addresses",
)
