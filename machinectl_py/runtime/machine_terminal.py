"""Terminals of a running machine's own devpts, for what we start in it."""

from __future__ import annotations

import os

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import procfs, terminal
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.runtime.enter import open_leader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState


def open_terminal(state: MachineState) -> tuple[int, str]:
    """Open a pseudo-terminal of the machine's own devpts; return the master and its path inside.

    It has the window size of the caller's terminal from the start, if there is one.

    Raises:
        ConflictError: the machine has just ended.
        UnsupportedError: it has no devpts.
    """
    opened = [open_leader(state)]
    try:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        opened.append(os.open(f"/proc/{state.leader}/root", flags))
        opened.append(open_in_root(opened[1], "dev/pts", os.O_PATH | os.O_DIRECTORY))
        master, path = terminal.open_pty_in(opened[2])
        # Who opens it by its path is a program of the machine; of a user namespace, ours is nobody.
        root = on_host(state, 0)
        os.chown(os.path.basename(path), root, -1, dir_fd=opened[2], follow_symlinks=False)
    except OSError as error:
        raise UnsupportedError(
            f"Failed to open a terminal in machine '{state.name}': {error.strerror}"
        ) from error
    finally:
        for fd in opened:
            os.close(fd)
    terminal.set_utf8(master)
    size = terminal.window_size(1) or terminal.window_size(0)
    if size:
        terminal.set_window_size(master, *size)
    return master, path


def on_host(state: MachineState, uid: int) -> int:
    """Return what a user of the machine is on the host; -1, which changes nothing, for none."""
    for inside, outside, count in procfs.id_map(state.leader):
        if inside <= uid < inside + count:
            return outside + uid - inside
    return -1
