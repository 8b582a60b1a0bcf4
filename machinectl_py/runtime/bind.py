"""More of the host for a running machine: a bind mount, until it ends; machinectl(1), bind."""

from __future__ import annotations

import errno
import os
import stat

from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.kernel.foreign_mounts import attach
from machinectl_py.kernel.idmap import set_idmap
from machinectl_py.kernel.mount import open_slave_tree, set_attributes
from machinectl_py.kernel.namespaces import namespace_id
from machinectl_py.runtime.enter import open_leader, require_may_enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState


def bind(state: MachineState, source: str, target: str, *, read_only: bool, make: bool) -> None:
    """Show a directory or file of the host's in a running machine.

    Its owners are the same numbers inside, by an idmapped mount where the machine has a user
    namespace. What is mounted below it later on is seen inside too; nothing comes back.

    Args:
        state: the machine.
        source: absolute path on the host.
        target: absolute path inside; links in it stay inside.
        read_only: whether it may only be read.
        make: make the target where it is missing.

    Raises:
        DeniedError: the caller is not root.
        NotFoundError: the source or target is missing.
        UnsupportedError: owners cannot be mapped on that file system.
        OSError: the kernel refused.
    """
    require_may_enter(state)
    if not target.startswith("/") or not target.strip("/"):
        raise ConfigError(f"'{target}' is no absolute path of a place inside")
    try:
        tree = open_slave_tree(os.path.realpath(source, strict=True))
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no {source} on this host") from error
    leader = open_leader(state)
    try:
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        flags = _map(state, tree, source)
        if read_only:
            set_attributes(tree, const.MOUNT_ATTR_RDONLY)
        attach(leader, tree, target, flags=flags, make=make, directory=directory)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"There is no {target} in machine '{state.name}'", "--mkdir makes it."
        ) from error
    except NotADirectoryError as error:
        raise ConfigError(f"{source} and {target} inside: one is a directory") from error
    finally:
        os.close(tree)
        os.close(leader)


def _map(state: MachineState, tree: int, source: str) -> int:
    """Have a mount show owners as the machine's; return the flag of its user namespace, or 0."""
    if namespace_id(state.leader, "user") == namespace_id("self", "user"):
        return 0
    user = os.open(f"/proc/{state.leader}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_idmap(tree, user)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise UnsupportedError(
            f"Machine '{state.name}' has a user namespace, and the file system of {source}"
            " cannot map owners",
            "'pymachine copy-to' copies it.",
        ) from error
    finally:
        os.close(user)
    return const.CLONE_NEWUSER
