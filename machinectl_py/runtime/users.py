"""The users of a machine that runs, from its own passwd(5) and group(5)."""

from __future__ import annotations

from machinectl_py.errors import NotFoundError
from machinectl_py.plan.user_database import ROOT, User, parse_user
from machinectl_py.runtime.inspect_os import read_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState


def find_user(state: MachineState, name: str) -> User:
    """Return a user of the machine by name or uid; root exists without a passwd, too.

    Raises:
        NotFoundError: the machine has no such user.
    """
    group = read_inside(state, "etc/group")
    found = parse_user(read_inside(state, "etc/passwd"), group, name)
    if found is None and name in ("root", "0"):
        return ROOT
    if found is None:
        raise NotFoundError(f"Machine '{state.name}' has no user '{name}'")
    return found
