"""The command `pymachine`: finds the verb's module, imports it alone, and tells errors.

Each verb is a module in `cli/verbs/` with

    USAGE     what follows "pymachine": "boot NAME|-D DIR [OPTION…]"
    SUMMARY   one line
    DETAILS   a paragraph or two for its --help; may be empty
    EXAMPLE   a command line that works
    OPTIONS   the table of its options
    COMMAND   how many words precede a command of the user's; -1 if none does
    run(arguments) -> int    the exit status
"""

from __future__ import annotations

import _signal
import gc
import io
import os
import sys

from machinectl_py.errors import EXIT_FAILURE, EXIT_USAGE, PymachineError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

# Groups in the order of --help; verb → module in cli/verbs.
VERBS: dict[str, dict[str, str]] = {
    "Start and stop": {
        "boot": "boot",
        "run": "run",
        "nspawn": "nspawn",
        "start": "start",
        "enable": "enable",
        "disable": "disable",
        "poweroff": "poweroff",
        "reboot": "reboot",
        "terminate": "terminate",
        "kill": "kill",
        "freeze": "freeze",
        "thaw": "thaw",
    },
    "Look at machines": {
        "list": "list",
        "status": "status",
        "show": "show",
        "plan": "plan",
        "trace": "trace",
        "namespaces": "namespaces",
        "processes": "processes",
        "mounts": "mounts",
        "monitor": "monitor",
        "service": "service",
    },
    "Work inside": {
        "console": "console",
        "exec": "exec",
        "shell": "shell",
        "login": "login",
        "copy-to": "copy_to",
        "copy-from": "copy_from",
        "bind": "bind",
    },
    "Networks": {
        "network": "network",
        "port": "port",
        "doctor": "doctor",
    },
    "Images": {
        "search": "search",
        "pull": "pull",
        "pull-tar": "pull_tar",
        "pull-raw": "pull_raw",
        "pull-oci": "pull_oci",
        "import-tar": "import_tar",
        "import-raw": "import_raw",
        "import-fs": "import_fs",
        "export-tar": "export_tar",
        "export-raw": "export_raw",
        "list-transfers": "list_transfers",
        "cancel-transfer": "cancel_transfer",
        "backup": "backup",
        "backups": "backups",
        "restore": "restore",
        "images": "images",
        "image-status": "image_status",
        "show-image": "show_image",
        "create": "create",
        "clone": "clone",
        "commit": "commit",
        "edit": "edit",
        "cat": "cat",
        "rename": "rename",
        "remove": "remove",
        "read-only": "read_only",
        "set-limit": "set_limit",
        "clean": "clean",
        "prune": "prune",
        "fsck": "fsck",
    },
    "Snapshots": {
        "snapshot": "snapshot",
        "snapshots": "snapshots",
        "rollback": "rollback",
        "reset": "reset",
        "diff": "diff",
    },
}
ALIASES = {
    "stop": "poweroff",
    "pause": "freeze",
    "resume": "thaw",
    "ps": "processes",
    "list-images": "images",
}


def find_verb(word: str) -> str:
    """Return the module's name of a verb.

    Raises:
        UsageError: there is no such verb.
    """
    word = ALIASES.get(word, word)
    for verbs in VERBS.values():
        if word in verbs:
            return verbs[word]
    from machinectl_py.cli.parse import closest

    known = tuple(verb for verbs in VERBS.values() for verb in verbs)
    raise UsageError(f"Unknown verb '{word}'" + closest(word, known), "See 'pymachine --help'.")


def load_verb(name: str) -> ModuleType:
    """Import and return a verb's module.

    What an import makes lives as long as the process. To look for garbage in it takes 2 ms here,
    and later, in the child, would copy every page of it.
    """
    module = f"machinectl_py.cli.verbs.{name}"
    gc.disable()
    __import__(module)
    gc.freeze()
    gc.enable()
    return sys.modules[module]


def dispatch(argv: list[str]) -> int:
    """Run the verb of this command line and return its exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        from machinectl_py.cli.help import print_overview, print_verb

        if len(argv) > 1:
            return print_verb(argv[1])
        print_overview(sys.stdout if argv else sys.stderr)
        return 0 if argv else EXIT_USAGE
    if argv[0] == "--version" and len(argv) > 1:
        raise UsageError("'--version' takes no arguments")
    if argv[0] == "--version":
        from machinectl_py.cli.help import print_version

        return print_version()
    if argv[0].startswith("-"):
        raise UsageError(f"Unknown option {argv[0]} before the verb", "See 'pymachine --help'.")
    verb = load_verb(find_verb(argv[0]))
    from machinectl_py.cli.parse import parse

    try:
        arguments = parse(verb.OPTIONS, argv[1:], command=verb.COMMAND)
    except UsageError as error:
        error.exit_status = getattr(verb, "USAGE_STATUS", EXIT_USAGE)
        raise
    if arguments.flag("help"):
        from machinectl_py.cli.help import print_verb

        return print_verb(argv[0])
    status: int = verb.run(arguments)
    return status


def report(error: BaseException) -> int:
    """Print an error as one line, with its hint, and return the exit status."""
    if os.environ.get("PYMACHINE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, PymachineError):
        message, hint, status = error.message, error.hint, error.exit_status
    elif isinstance(error, KeyboardInterrupt):
        message, hint, status = "Interrupted", "", EXIT_FAILURE
    elif isinstance(error, OSError):
        subject = f"{error.filename}: " if error.filename else ""
        message, hint, status = f"{subject}{error.strerror or error}", "", EXIT_FAILURE
    else:
        message = f"Internal error: {type(error).__name__}: {error}"
        hint, status = "PYMACHINE_DEBUG=1 shows where; please report it.", EXIT_FAILURE
    text = f"pymachine: {' '.join(message.split())}\n" + (f"hint: {hint}\n" if hint else "")
    os.write(2, text.encode(errors="surrogateescape"))
    return status


def _own_words() -> list[str]:
    """Return the command line; called by the name systemd-nspawn, we are it."""
    if os.path.basename(sys.argv[0]) == "systemd-nspawn":
        return ["nspawn", *sys.argv[1:]]
    return sys.argv[1:]


class _Output(io.TextIOWrapper):
    """Standard output, whose errors say that it is theirs."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            error.filename = "standard output"
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            error.filename = "standard output"
            raise


def _set_up_streams() -> None:
    """Have all three standard streams, also those that our caller has closed.

    Else the next files opened, such as a machine's lock, would be taken for them. To write to an
    output that is not there fails, as it does for any program.
    """
    for fd, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", mode)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)
    buffer = sys.stdout.buffer if sys.stdout else open(1, "wb", closefd=False)
    sys.stdout = _Output(buffer, "utf-8", "surrogateescape", line_buffering=os.isatty(1))


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and leave the process.

    Leaves by `os._exit`, since a verb of 20 ms need not pay for taking the interpreter down.
    """
    try:
        if _signal.getsignal(_signal.SIGINT) is _signal.SIG_DFL:  # so left by packaging/pymachine
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        _set_up_streams()
        status = dispatch(_own_words() if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `pymachine list | head`
        status = EXIT_FAILURE
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else EXIT_FAILURE
    except BaseException as error:  # noqa: BLE001 - the last resort: one line, no traceback
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # a second Ctrl-C adds nothing
        status = report(error)
    os._exit(status)
