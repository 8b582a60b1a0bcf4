"""What `boot`, `run` and `plan` share: their options, and from words to spec and facts."""

from __future__ import annotations

import os

from machinectl_py.config.option import Option
from machinectl_py.config.options import Choices, make_spec
from machinectl_py.errors import ConfigError, DeniedError, NotFoundError, UsageError
from machinectl_py.images import store
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES
from machinectl_py.managers.choose import has_machined, manager_kind
from machinectl_py.plan.facts import probe_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.spec import MachineSpec, Payload
    from machinectl_py.plan.facts import HostFacts

MACHINE_OPTIONS = (
    Option(name="--directory", short="-D", value="DIR", help="boot this directory"),
    Option(name="--machine", short="-M", value="NAME", help="name the machine"),
    Option(name="--hostname", value="NAME", help="its hostname, by default its name"),
    Option(name="--uuid", value="UUID", help="its machine ID, where the tree has none"),
    Option(
        name="--setenv", short="-E", value="NAME[=VALUE]", many=True, help="set a variable of PID 1"
    ),
    Option(name="--private-network", help="a network namespace of its own, with lo alone"),
    Option(name="--capability", value="CAP,…", many=True, help="retain capabilities besides"),
    Option(name="--drop-capability", value="CAP,…", many=True, help="drop capabilities"),
    Option(name="--no-new-privileges", help="let no program inside gain privileges"),
    Option(
        name="--system-call-filter",
        value="NAMES",
        many=True,
        help="allow system calls and @groups, with ~ before the first deny them",
    ),
    Option(name="--bind", value="PATH[:PATH]", many=True, help="show a path of the host inside"),
    Option(name="--bind-ro", value="PATH[:PATH]", many=True, help="idem, read-only"),
    Option(name="--tmpfs", value="PATH[:OPTIONS]", many=True, help="mount a tmpfs inside"),
    Option(name="--read-only", help="mount the root read-only"),
    Option(name="--rlimit", value="NAME=SOFT[:HARD]", many=True, help="a resource limit"),
    Option(name="--slice", short="-S", value="SLICE", help="by default machine.slice"),
    Option(name="--property", value="NAME=VALUE", many=True, help="a property of the scope"),
    Option(
        name="--register",
        value="BOOL",
        choices=("yes", "no", "true", "false", "on", "off", "1", "0"),
        help="with systemd-machined, if it runs",
    ),
    Option(name="--keep-unit", help="stay in the unit that this runs in"),
    Option(
        name="--cgroup-manager",
        value="NAME",
        choices=("auto", "systemd", "unit", "embedded"),
        help="auto, systemd, unit, embedded",
    ),
    Option(name="--kill-signal", value="SIGNAL", help="for an orderly stop"),
)


def resolve_root(arguments: Arguments) -> tuple[str, str, list[str]]:
    """Return the machine's name, its root, and the words that are left.

    Raises:
        UsageError: neither an image nor a directory is named.
        PymachineError: there is none, it is no tree, or the name is not valid.
    """
    words = list(arguments.words)
    if arguments.given("directory"):
        path = arguments.text("directory")
        if not path:
            raise UsageError("--directory= is empty")
        root = os.path.realpath(path)
        name = arguments.text("machine") or os.path.basename(root)
    else:
        if not words:
            raise UsageError("The name of an image, or -D DIR, is missing")
        image = words.pop(0)
        store.check_name(image)
        root = store.find_root(image)
        name = arguments.text("machine", image)
    store.check_name(name)
    store.check_tree(root)
    return name, root, words


def make_machine(
    arguments: Arguments,
    *,
    name: str,
    root: str,
    payload: Payload,
    console: str,
    foreground: bool,
) -> tuple[MachineSpec, HostFacts]:
    """Return spec and facts of the machine that the options describe.

    Raises:
        DeniedError: the caller is not root.
        ConfigError: a value is not valid.
    """
    if os.geteuid():
        raise DeniedError("Only root may start machines", "Try again with sudo.")
    for option in ("bind", "bind-ro"):
        for text in arguments.texts(option):
            source = text.partition(":")[0]
            if not os.path.exists(source):
                raise NotFoundError(f"--{option}={text}: there is no {source} on this host")
    signal = signal_number(arguments.text("kill-signal")) if arguments.given("kill-signal") else 0
    spec = make_spec(
        Choices(arguments.values, dict(os.environ)),
        name=name,
        root=root,
        machine_id=store.machine_id(root) or os.urandom(16).hex(),
        payload=payload.replace(kill_signal=signal),
        console=console,
        capability_numbers={name: number for number, name in enumerate(CAPABILITY_NAMES)},
    )
    manager = manager_kind(spec.cgroup.manager, arguments.flag("keep-unit"))
    register = spec.cgroup.register and has_machined()
    facts = probe_facts(
        root,
        manager=manager,
        register=register,
        foreground=foreground,
        bind_users=spec.bind_users.names,
    )
    return spec, facts


def signal_number(text: str) -> int:
    """Return the number of a signal: "TERM", "SIGTERM", "15", "SIGRTMIN+3".

    Raises:
        ConfigError: there is no such signal.
    """
    import _signal

    plain = text.upper().removeprefix("SIG")
    base, plus, more = plain.partition("+")
    number = int(base) if base.isdigit() else getattr(_signal, f"SIG{base}", 0)
    if plus and more.isdigit():
        number += int(more)
    if not 0 < number <= _signal.SIGRTMAX or (plus and not more.isdigit()):
        raise ConfigError(f"There is no signal '{text}'")
    return int(number)
