"""The last lines of the host's journal about a machine, by journalctl(1)."""

from __future__ import annotations

import os

from machinectl_py.kernel.program import Program
from machinectl_py.log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState

_JOURNALCTL = "/usr/bin/journalctl"


def journal_lines(state: MachineState, count: int, output: str) -> list[str]:
    """Return the last lines about the unit that a machine runs in, since it was started.

    Args:
        state: of the machine, which has a unit.
        count: how many entries at most.
        output: their form, as journalctl's --output= has it.

    Returns:
        Lines; none where the host has no journalctl. That it cannot read the journal, as who is not
        root, is told as a warning.
    """
    if not os.path.exists(_JOURNALCTL):
        return []
    # Of the start's own second too: what is before it is of the machine's start as well.
    since = f"--since=@{state.started // 1_000_000}"
    command = (_JOURNALCTL, "--quiet", "--no-pager", f"--unit={state.unit}", since)
    status, said, errors = Program((*command, f"--lines={count}", f"--output={output}")).wait()
    if status:
        cause = errors.strip().partition("\n")[0] or f"journalctl ended with status {status}"
        warn(f"The journal of unit {state.unit} cannot be read: {cause}")
    return said.splitlines()
