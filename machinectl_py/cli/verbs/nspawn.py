"""`pymachine nspawn`: systemd-nspawn's command line, defaults and exit codes, option for option."""

from __future__ import annotations

import os
import sys

from machinectl_py import __version__
from machinectl_py.cli.machine_options import (
    SETTINGS_OPTION,
    files_mode,
    selection,
    setting_options,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import (
    EXIT_FAILURE,
    ConfigError,
    PymachineError,
    UnsupportedError,
)
from machinectl_py.images import store
from machinectl_py.images.pick import base_name
from machinectl_py.images.records import find_machine
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES
from machinectl_py.log import shows_info, warn
from machinectl_py.managers.choose import systemd_runs
from machinectl_py.runtime.foreground import follow_foreground
from machinectl_py.runtime.payload import find_init
from machinectl_py.runtime.prepare import Way, make_machine
from machinectl_py.runtime.settings import read_values
from machinectl_py.runtime.target import find_path, resolve_name, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.merge import Values
    from machinectl_py.config.spec import ConsoleMode, PayloadKind
    from machinectl_py.runtime.foreground import Ending
    from machinectl_py.runtime.target import Selection, Target

_USER_MANAGER = "-"  # --user alone; no name of a user
# To systemd-nspawn the word after them is their value.
_NEEDS_VALUE = ("--notify-ready", "--suppress-sync", "--no-new-privileges", "--register")
USAGE = "nspawn [OPTION…] [COMMAND [ARGUMENT…]]"
SUMMARY = "Do what systemd-nspawn does, option for option"
DETAILS = """\
A machine in the foreground, with the options, defaults and exit codes of systemd-nspawn; also when
pymachine is called by the name systemd-nspawn. Without a root it is the working directory, without
a command a shell; --boot starts the init. Press ^] three times within a second to kill it."""
EXAMPLE = "pymachine nspawn -D /var/lib/machines/debian --boot"
OPTIONS = (
    Option(name="--quiet", short="-q", help="say nothing of its beginning and end"),
    Option(name="--no-pager", help="no effect: nothing is paged"),
    Option(name="--no-ask-password", help="no effect: no password is asked for"),
    Option(name="--system", help="in the system's manager, which is the default"),
    Option(
        name="--user",
        value="USER",
        optional_value=_USER_MANAGER,
        takes_next=True,
        help="an older name of --uid",
    ),
    Option(name="--cleanup", help="remove what an interrupted run left, and exit"),
    Option(name="--version", help="print the version of systemd that this is like"),
    SETTINGS_OPTION,
    *(
        row.replace(optional_value="") if row.name in _NEEDS_VALUE else row
        for row in setting_options()
    ),
)
COMMAND = 0
USAGE_STATUS = EXIT_FAILURE  # as systemd-nspawn's
_COMPATIBLE_WITH = 257


def run(arguments: Arguments) -> int:
    """Run the machine to its end and return its exit status."""
    try:
        return _run(arguments)
    except PymachineError as error:
        error.exit_status = EXIT_FAILURE
        raise


def _run(arguments: Arguments) -> int:
    if arguments.flag("version"):
        sys.stdout.write(f"systemd {_COMPATIBLE_WITH} (pymachine {__version__})\n")
        return 0
    if (listed := _help_for_values(arguments)) is not None:
        sys.stdout.write("".join(f"{name}\n" for name in listed))
        return 0
    _take_user(arguments)
    selected = _take_template(selection(arguments))
    target = _find(selected)
    if arguments.flag("cleanup"):
        return _clean_up(target.name)
    values = read_values(selected, target, files_mode(arguments), lenient=True)
    if _is_marked(selected, target) and not values.flag("ephemeral"):
        values.values["read_only"] = True
    keep_unit = values.flag("keep_unit")
    if keep_unit and not systemd_runs():  # no unit to be kept: the cgroup is ours all the same
        values.values["keep_unit"] = False
    kind, argv = _payload(values, target)
    if kind != "boot":  # no signal stops any command in order
        values.values.setdefault("kill_signal", 0)
    console = _console(values)
    way = Way(kind=kind, argv=argv, console=console, foreground=True, service="systemd-nspawn")
    spec, facts = make_machine(target, values, way)
    # With "pipe" standard error is the payload's.
    quiet = arguments.flag("quiet") or console == "pipe" or not shows_info()
    if not quiet:
        _say(f"Spawning container {target.name} on {target.root}.")
        if console in ("interactive", "read-only"):
            _say("Press Ctrl-] three times within 1s to kill container.")
    ending = follow_foreground(spec, facts, signals="stop", leave_reboot=keep_unit)
    if not quiet:
        _say(_describe(target.name, ending))
    return ending.nspawn_exit_status


def _help_for_values(arguments: Arguments) -> tuple[str, ...] | None:
    """Return the values that an option may have whose value is "help"; None if there is none."""
    for row in setting_options():
        if arguments.values.get(row.name[2:]) in ("help", ["help"]):
            from machinectl_py.config.listing import possible_values

            if listed := possible_values(row.kind, tuple(CAPABILITY_NAMES)):
                return listed
    return None


def _take_user(arguments: Arguments) -> None:
    """Take --user=USER for --uid=.

    Raises:
        UnsupportedError: it was given for the user's own service manager.
    """
    if not arguments.given("user"):
        return
    if arguments.text("user") == _USER_MANAGER:
        raise UnsupportedError(
            "Machines of a user's own service manager (--user) are not supported",
            "--uid=USER runs the payload as a user of the machine.",
        )
    warn("--user= is an older name; use --uid=")
    arguments.values.setdefault("uid", arguments.text("user"))


def _take_template(selected: Selection) -> Selection:
    """Take --ephemeral --template=DIR for --ephemeral --directory=DIR, as it was of old."""
    template = selected.option("template", "")
    named = selected.directory is not None or selected.image is not None
    if named or not template or not selected.option("ephemeral", False):
        return selected
    return selected.replace(directory=template).without("template")


def _is_marked(selected: Selection, target: Target) -> bool:
    """Say whether the root was found by the machine's name, and is marked read-only."""
    given = selected.directory is not None or selected.image is not None
    if given or target.machine is not None or not selected.name:
        return False
    return os.path.exists(target.root) and store.is_read_only(target.root)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _describe(name: str, ending: Ending) -> str:
    """Return how the machine ended, in systemd-nspawn's words."""
    if ending.rebooting:
        return f"Container {name} is being rebooted."
    if ending.signal:
        import _signal

        return f"Container {name} terminated by signal {_signal.strsignal(ending.signal)}."
    if ending.status:
        return f"Container {name} failed with error code {ending.status}."
    return f"Container {name} exited successfully."


def _find(selected: Selection) -> Target:
    """Return the machine: by root, by name, or in the working directory.

    Raises:
        PymachineError: there is none, or it gives no valid name.
    """
    name, image = selected.name, selected.image
    if name:
        store.check_name(name)
    if image and selected.directory is not None:
        raise ConfigError("--directory= and --image= do not go together")
    root = selected.directory or image or ""
    template = selected.option("template", "")
    if not root and template and name:
        root = f"{store.MACHINES_DIR}/{name}"
    elif template and not root:
        raise ConfigError("--template= needs --directory= or --machine=")
    elif not root and name:
        if find_machine(name):
            return resolve_name(selected, name)
        root = store.find_root(name)
    given, root = find_path(root or os.getcwd(), image=bool(image))
    return settle(selected, name or _name_of(given), root, given)


def _name_of(root: str) -> str:
    """Return the name that a root gives its machine; what no name may hold is left out."""
    base = base_name(root).removesuffix(".raw") or os.uname().nodename
    name = "".join(letter for letter in base if store.is_valid_name(f"a{letter}a"))
    name = name.strip("-.")[:64].rstrip("-.")
    if not store.is_valid_name(name):
        raise ConfigError(f"{root} gives no valid machine name", "--machine= gives it one.")
    return name


def _payload(values: Values, target: Target) -> tuple[PayloadKind, tuple[str, ...]]:
    """Return kind and argv of the payload."""
    booted, as_pid2 = values.flag("boot"), values.flag("as_pid2")
    if booted and as_pid2:
        raise ConfigError("--boot and --as-pid2 do not go together")
    argv = values.get("parameters", ())
    if booted:
        return "boot", (find_init(target, values), *argv)
    return ("as-pid2" if as_pid2 else "command"), argv


def _console(values: Values) -> ConsoleMode:
    mode = values.get("console", "")
    terminal = os.isatty(0) and os.isatty(1)
    if mode == "autopipe":
        return "interactive" if terminal else "pipe"
    if mode:
        return mode  # type: ignore[no-any-return]  # the table has no other
    return "interactive" if terminal else "read-only"


def _clean_up(name: str) -> int:
    from machinectl_py.runtime.state import find_running

    if find_running(name):
        raise ConfigError(f"Machine '{name}' is running", f"'pymachine terminate {name}' ends it.")
    return 0
