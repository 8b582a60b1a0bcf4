"""The resolver of a machine that runs follows the managed networks that it is in."""

from __future__ import annotations

import _signal
import os
import select

from machinectl_py.errors import PymachineError
from machinectl_py.kernel.process import pidfd_send_signal
from machinectl_py.log import warn
from machinectl_py.plan.steps.resolver import (
    RESOLV_CONF,
    RESOLVED_CONF,
    renew_resolver,
    resolv_conf,
    resolved_conf,
)
from machinectl_py.runtime.enter import Command, exit_status, start
from machinectl_py.runtime.session import has_systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.runtime.state import MachineState

    Networks = tuple[ManagedNetwork, ...]

_TIMEOUT = 10.0  # seconds for the machine's own tools
# By root of the machine itself, with its tools: of what it may not write, neither may we for it.
# Restarted, as resolved of systemd 252 cannot reload, and that of 257 keeps domains that are gone;
# to reset what has not failed resets the count of its starts, of which there is a limit.
_RENEW = f"""\
file={RESOLVED_CONF} unit=systemd-resolved.service
test "$(cat $file 2>/dev/null)" = "$1" || exit 0
if test "$2"; then mkdir -p ${{file%/*}} && printf '%s\\n' "$2" >$file; else rm -f $file; fi || exit
systemctl --quiet is-active $unit || exit 0
systemctl --quiet reset-failed $unit
exec systemctl --quiet try-restart $unit
"""


def renew_resolvers(state: MachineState, before: Networks, after: Networks) -> None:
    """Have a machine ask the resolver of its first network, as far as it asks ours until now.

    What cannot be changed is told as a warning.

    Args:
        state: of the machine.
        before: the networks that it was in.
        after: those that it is in now.
    """
    root = f"/proc/{state.leader}/root"
    try:
        renew_resolver(root, _of(before, resolv_conf), _of(after, resolv_conf), state.uid_base)
    except OSError as error:
        warn(f"{RESOLV_CONF} of '{state.name}' stays as it is: {error.strerror}")
    if state.kind == "boot" and has_systemd(state, "systemctl"):
        try:
            _renew_resolved(state, _of(before, resolved_conf), _of(after, resolved_conf))
        except (PymachineError, OSError) as error:  # OSError: it has just ended
            warn(f"systemd-resolved of '{state.name}' stays as it is: {error}")


def _of(networks: Networks, text: Callable[[tuple[str, ...], tuple[str, ...]], bytes]) -> bytes:
    servers = networks[0].gateways() if networks else ()
    return text(servers, tuple(network.name for network in networks))


def _renew_resolved(state: MachineState, before: bytes, after: bytes) -> None:
    """Write the drop-in unless another has, and have a resolved that runs read it.

    Raises:
        PymachineError: the machine's tools fail, or take too long; or it is frozen.
    """
    texts = (text.decode().rstrip("\n") for text in (before, after))
    command = Command(argv=("/bin/sh", "-c", _RENEW, "sh", *texts))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        tool = start(state, command, (null, null, null))
    finally:
        os.close(null)
    poll = select.poll()
    poll.register(tool.pidfd, select.POLLIN)
    in_time = poll.poll(_TIMEOUT * 1000)
    if not in_time:
        pidfd_send_signal(tool.pidfd, _signal.SIGKILL)
    if status := exit_status(tool):
        how = f"failed with status {status}" if in_time else "took too long"
        raise PymachineError(f"its own tools {how}")
