"""Sessions in a machine that its own systemd starts: a getty, or a shell with PAM.

Both are units of the machine's on a terminal that we open in its devpts, as systemd-machined's
OpenMachineLogin and OpenMachineShell make them; the machine's own systemctl(1) and systemd-run(1)
speak to its manager, so that no protocol between versions is ours to get right.
"""

from __future__ import annotations

import os

from machinectl_py.errors import EXIT_SIGNAL_BASE, PymachineError, UnsupportedError
from machinectl_py.kernel import const
from machinectl_py.kernel.paths import open_in_root
from machinectl_py.runtime.enter import (
    Command,
    Process,
    exit_status,
    open_leader,
    require_may_enter,
    start,
)
from machinectl_py.runtime.forward import Outcome, forward
from machinectl_py.runtime.machine_terminal import open_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.runtime.state import MachineState

# org.freedesktop.machine1(5), OpenMachineShell: what makes it a session at a terminal. But no
# TTYReset=, which at the end throws away what has been written and not been read yet.
_SHELL_PROPERTIES = (
    "PAMName=login",
    "StandardInput=tty",
    "StandardOutput=tty",
    "StandardError=tty",
    "SendSIGHUP=yes",
    "IgnoreSIGPIPE=no",
    "KillMode=mixed",
    "UtmpMode=user",
    "WorkingDirectory=-~",
)
_MOST_TOLD = 4096  # bytes of what a tool inside says


def has_systemd(state: MachineState, program: str) -> bool:
    """Say whether the machine's init is systemd, see sd_booted(3), and it has this program."""
    return _exists(state, "run/systemd/system") and _exists(state, f"usr/bin/{program}")


def _exists(state: MachineState, path: str) -> bool:
    try:
        root = os.open(f"/proc/{state.leader}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.close(open_in_root(root, path, os.O_PATH))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def start_getty(state: MachineState) -> int:
    """Have a getty started on a new terminal of a machine; return the terminal's master.

    Raises:
        DeniedError: only root may enter.
        UnsupportedError: the machine's init is not systemd.
        PymachineError: the getty cannot be started; the line says why.
    """
    require_may_enter(state)
    if not has_systemd(state, "systemctl"):
        raise UnsupportedError(
            f"The init of machine '{state.name}' is not systemd, which 'login' needs",
            f"For a shell: pymachine shell {state.name}",
        )
    master, path = open_terminal(state)
    unit = f"container-getty@{path.rpartition('/')[2]}.service"
    tool, said = _start_tool(state, ("systemctl", "start", unit))
    status = exit_status(tool)
    _require_success(state, status, f"start {unit} in", said)
    if status:
        raise PymachineError(f"Failed to start {unit} in machine '{state.name}'")
    return master


def stay(state: MachineState, master: int) -> Outcome:
    """Forward a terminal of a machine until it is left or the machine ends.

    When somebody has logged out the getty comes again, so this is not the end; that of an input
    that is no terminal is.
    """
    return forward(master, pidfd=open_leader(state), escape=True, at_end="leave")


def shell(
    state: MachineState, user: str, argv: tuple[str, ...], environment: tuple[tuple[str, str], ...]
) -> int:
    """Have a command started as a login session of a user and forward its terminal.

    Returns:
        The exit status of the command, as systemd-run --wait has it; 129 (SIGHUP, which it gets)
        when detached.

    Raises:
        PymachineError: the session cannot be started; the line says why.
    """
    master, path = open_terminal(state)
    number = path.rpartition("/")[2]
    properties = (*_SHELL_PROPERTIES, f"TTYPath={path}", f"UtmpIdentifier=pts/{number}")
    tool, said = _start_tool(
        state,
        (
            *("systemd-run", "--quiet", "--wait", "--collect"),
            *(f"--unit=container-shell@{number}.service", f"--description=Shell for {user}"),
            f"--uid={user}",
            *(f"--property={setting}" for setting in properties),
            *(f"--setenv={name}={value}" for name, value in environment),
            # systemd would put variables of the unit in; systemd.service(5), "Command lines".
            *("--", argv[0], *(word.replace("$", "$$") for word in argv[1:])),
        ),
    )
    outcome = forward(master, pidfd=tool.pidfd, escape=True, at_end="insist")
    if outcome.reason == "ended":
        status = exit_status(tool)
        _require_success(state, status, "start a session in", said)
        return status
    os.close(master)  # hangs up: SIGHUP for the session inside
    return EXIT_SIGNAL_BASE + (outcome.signal or const.SIGHUP)


def _start_tool(state: MachineState, argv: tuple[str, ...]) -> tuple[Process, int]:
    """Start a tool of the machine's; return it and a pipe with what it says."""
    said, say = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return start(state, Command(argv=argv), (null, say, say)), said
    finally:
        os.close(say)
        os.close(null)


def _require_success(state: MachineState, status: int, act: str, said: int) -> None:
    """Raise what a tool said if it failed; a status with nothing said is the command's own."""
    text = os.read(said, _MOST_TOLD).decode(errors="replace").strip()
    os.close(said)
    if status and text:
        last = "".join(letter for letter in text.splitlines()[-1] if letter.isprintable())
        raise PymachineError(f"Failed to {act} machine '{state.name}': {last}")
