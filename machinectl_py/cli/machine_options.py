"""What `boot`, `run` and `plan` share: their options; from words and files to spec and facts."""

from __future__ import annotations

import os

from machinectl_py.config.assemble import Frame, has_user_namespace, make_spec, root_spec
from machinectl_py.config.environment import flag
from machinectl_py.config.merge import EMPTY, Values, from_options, merge
from machinectl_py.config.option import Option
from machinectl_py.config.spec import UsersSpec
from machinectl_py.config.table import SETTINGS, Setting
from machinectl_py.config.values import boolean
from machinectl_py.errors import (
    ConfigError,
    DeniedError,
    NotFoundError,
    PymachineError,
    UnsupportedError,
    UsageError,
)
from machinectl_py.images import store
from machinectl_py.images.machines import create, machine_for
from machinectl_py.images.pick import base_name, pick_directory, pick_image
from machinectl_py.images.records import Machine, find_machine
from machinectl_py.images.store import ephemeral_name
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES
from machinectl_py.kernel.idmap import why_unmappable
from machinectl_py.layout import SERVICE
from machinectl_py.log import warn
from machinectl_py.managers.choose import has_machined, manager_kind
from machinectl_py.plan.facts import probe_facts
from machinectl_py.plan.host_files import host_machine_id
from machinectl_py.plan.mount_facts import probe_mounts
from machinectl_py.plan.network_facts import probe_network
from machinectl_py.plan.root_facts import default_users, image_users
from machinectl_py.record import Record
from machinectl_py.runtime.root_view import view_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.merge import FilesMode
    from machinectl_py.config.spec import ConsoleMode, MachineSpec, PayloadKind
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.runtime.root_view import RootView

_NO_MACHINED = "systemd-machined does not run on this host"
SETTINGS_OPTION = Option(
    name="--settings",
    value="MODE",
    help="how far a settings file counts: yes, no, override, trusted",
)


def setting_options(*without: str) -> tuple[Setting, ...]:
    """Return the rows of the table that are options, but those of these names without dashes."""
    hidden = {"", *(f"--{name}" for name in without)}
    return tuple(row for row in SETTINGS if row.name not in hidden)


# A machine in the background has no console of ours, and its payload is its init.
BACKGROUND_OPTIONS = (
    *setting_options("boot", "as-pid2", "console", "pipe", "background"),
    SETTINGS_OPTION,
)


class Target(Record):
    """The machine that is meant."""

    name: str
    root: str
    words: tuple[str, ...]  # of the command line, that are left
    settings: str  # the name that its settings file has
    given: str = ""  # the path that was given, of which `root` is a version or the end of a link
    machine: Machine | None = None  # how it was made of an image; None: its root is used in place


def resolve(arguments: Arguments, *, fill: bool = True) -> Target:
    """Return the machine's name, its root, and the words that are left.

    Args:
        arguments: of the command line.
        fill: make a root that is missing from the template.

    Raises:
        UsageError: neither an image nor a directory is named.
        PymachineError: there is none, or the name is not valid.
    """
    words = list(arguments.words)
    options = [option for option in ("directory", "image") if arguments.given(option)]
    if len(options) > 1:
        raise UsageError("--directory= and --image= exclude each other")
    if options:
        path = arguments.text(options[0])
        if not path:
            raise UsageError(f"--{options[0]}= is empty")
        given, root = find_path(path, image=options == ["image"])
        suffix = ".raw" if options == ["image"] else ""
        name = arguments.text("machine") or base_name(given).removesuffix(suffix)
    else:
        if not words:
            raise UsageError("The name of an image, -D DIR or -i PATH is missing")
        image = words.pop(0)
        store.check_name(image)
        return resolve_name(arguments, image, tuple(words), fill=fill)
    return settle(arguments, name, root, tuple(words), given, fill=fill)


def find_path(path: str, *, image: bool) -> tuple[str, str]:
    """Return the path of a root as it was given, made absolute, and where the root is.

    Raises:
        NotFoundError: the path is a versioned directory that holds no version.
    """
    given = os.path.abspath(path)
    return given, os.path.realpath(pick_image(given) if image else pick_directory(given))


def resolve_name(
    arguments: Arguments, image: str, words: tuple[str, ...], *, fill: bool = True
) -> Target:
    """Return the machine that is meant by the name of an image or machine, made if missing.

    Args:
        arguments: of the command line, with the name of the machine if that is another.
        image: the name.
        words: of the command line, that are left.
        fill: make what is missing.

    Raises:
        PymachineError: as `machine_for`.
    """
    name = arguments.text("machine", image)
    if arguments.given("template") and find_machine(image) is None:
        return settle(arguments, name, _find_root(image), words, fill=fill)
    if from_options(arguments.values, SETTINGS).values.get("ephemeral"):
        return _ephemeral(arguments, image, words, fill=fill)
    store.check_name(name)
    machine = machine_for(image, name, make=fill)
    if machine:
        return target_of(machine, name, words)
    return settle(arguments, name, store.find_root(image), words, fill=fill)


def _ephemeral(arguments: Arguments, image: str, words: tuple[str, ...], *, fill: bool) -> Target:
    """Return a machine that goes when it ends: of an image in place, or of a machine as it is.

    Of a disk image, where that takes no copy, a machine is made too.
    """
    given = arguments.text("machine")
    name = given if given not in ("", image) else ephemeral_name(image)
    store.check_name(name)
    source = find_machine(image)
    if source is not None:
        machine = create(image, name, ephemeral=True) if fill else source
        return target_of(machine, name, words).replace(settings=image)
    root = store.find_root(image)
    if fill and root.endswith(".raw"):
        try:
            machine = create(image, name, ephemeral=True)
        except UnsupportedError:
            pass
        else:
            return target_of(machine, name, words).replace(settings=image)
    return settle(arguments, arguments.text("machine", image), root, words, fill=fill)


def target_of(machine: Machine, name: str, words: tuple[str, ...]) -> Target:
    """Return a machine that was made of an image, as one to be started."""
    from machinectl_py.images.drivers import root_of

    root = root_of(machine.driver, machine.base, machine.own)
    return Target(name=name, root=root, words=words, settings=name, machine=machine)


def settle(
    arguments: Arguments,
    name: str,
    root: str,
    words: tuple[str, ...],
    given: str = "",
    *,
    fill: bool = True,
) -> Target:
    """Return a machine by what makes it besides: its template, and that it is ephemeral.

    Raises:
        PymachineError: the name is not valid, or the root cannot be made.
    """
    options = from_options(arguments.values, SETTINGS).values
    settings = name
    if options.get("ephemeral") and not arguments.given("machine"):
        name = ephemeral_name(name)  # so that many can run of one root
    store.check_name(name)
    if fill and (template := options.get("template", "")):
        if options.get("ephemeral"):  # before anything is made
            raise ConfigError("--ephemeral and --template= do not go together")
        _fill_root(template, root)
    return Target(name=name, root=root, words=words, settings=settings, given=given)


def _find_root(image: str) -> str:
    try:
        return store.find_root(image)
    except NotFoundError:
        return f"{store.MACHINES_DIR}/{image}"


def _fill_root(template: str, root: str) -> None:
    from machinectl_py.images.template import fill_root

    if os.geteuid():
        raise DeniedError("Only root may make machines", "Try again with sudo.")
    if not fill_root(find_path(template, image=False)[1], root):
        warn(f"{root} exists already, and is not made from {template}")


def _checks_os_release() -> bool:
    return flag(dict(os.environ), "SYSTEMD_NSPAWN_CHECK_OS_RELEASE", default=True)


def find_init(target: Target, values: Values) -> str:
    """Return the path, inside the root, of the init that it would boot.

    Raises:
        PymachineError: there is none, or the root cannot be used.
    """
    with view_root(target.root, root_spec(values)) as view:
        _check_tree(view, os_release=True)
        return store.find_init(view.inner, target.root)


def boot_argv(target: Target, values: Values, *, answered: bool = False) -> tuple[str, ...]:
    """Return the command line of the init of a machine in the background.

    At its first boot systemd-firstboot(1) asks questions on the console, and the boot waits for the
    answers; where nobody gives any, it is told not to ask.

    Args:
        target: the machine.
        values: what options and files say.
        answered: whether the user is at the machine's console.

    Raises:
        PymachineError: there is no init, or the root cannot be used.
    """
    with view_root(target.root, root_spec(values)) as view:
        _check_tree(view, os_release=True)
        init = store.find_init(view.inner, target.root)
        first = values.get("volatile", "no") == "yes" or not store.machine_id(view.inner)
    words: tuple[str, ...] = values.get("parameters", ())
    if answered or not first or not init.endswith("/systemd"):
        return (init, *words)
    if any(word.startswith("systemd.firstboot") for word in words):
        return (init, *words)
    return (init, "systemd.firstboot=off", *words)


def _default_users(view: RootView, values: Values) -> UsersSpec:
    layer, mounts = values.get("layer", ""), values.get("mounts", ())
    if view.image is None:
        return default_users(view.root, layer, mounts)
    return UsersSpec() if layer and why_unmappable(layer) else image_users(view.image, mounts)


def _check_tree(view: RootView, *, os_release: bool) -> None:
    """Refuse a root that does not hold what is to be started."""
    if os_release and _checks_os_release() and view.root != "/":  # which the spec's check refuses
        store.check_tree(view.inner, view.root)
    elif not os.path.isdir(view.tree):
        there = os.path.exists(view.tree)
        raise NotFoundError(
            f"{view.root} is not a directory" if there else f"There is no directory {view.root}"
        )
    elif not os.path.isdir(f"{view.inner}/usr"):
        raise NotFoundError(f"{view.root} is not the root of an operating system: it has no /usr")


def read_values(arguments: Arguments, target: Target, *, lenient: bool = False) -> Values:
    """Return what options and settings files say of a machine.

    Args:
        arguments: the command line.
        target: the machine.
        lenient: whether what is not valid in a file is passed over with a warning.

    Raises:
        UsageError, ConfigError: a value is not valid.
    """
    options = from_options(arguments.values, SETTINGS)
    if target.words:  # which say how to start, as Parameters= does
        options = options.replace(
            values=options.values | {"parameters": target.words},
            origins=options.origins | {"parameters": "arguments"},
            said=options.said | {"parameters", "start"},
        )
    mode = _files_mode(arguments.text("settings", "yes"))
    files = EMPTY
    if mode != "no":
        from machinectl_py.config.nspawn_file import settings_files

        if found := settings_files(target.settings, _beside(target)):
            from machinectl_py.config.merge import from_files

            files = from_files(found, warn, lenient=lenient, trust_all=mode == "trusted")
    values = _read_in(merge(options, files, SETTINGS, mode))
    if target.machine is not None:
        from machinectl_py.images.drivers import root_values

        values.values.update(root_values(target.machine))
    if not arguments.given("directory") and store.is_image(target.root):  # found by its name
        values.values["image"] = target.root
    return values


def _beside(target: Target) -> str:
    """Return the path beside which the settings are looked for, too."""
    return target.machine.base if target.machine else target.given or target.root


def _files_mode(text: str) -> FilesMode:
    if text in ("override", "trusted"):
        return text  # type: ignore[return-value]  # mypy does not narrow it
    try:
        return "yes" if boolean(text) else "no"
    except ValueError:
        raise UsageError(f"--settings={text}: expected yes, no, override or trusted") from None


def _read_in(values: Values) -> Values:
    """Put the contents in the place of files that are named: credentials and profiles."""
    if "load_credentials" in values.values:
        from machinectl_py.config.credentials import load_credential

        loaded = tuple(load_credential(*pair) for pair in values.values["load_credentials"])
        values.values["credentials"] = (*values.get("credentials", ()), *loaded)
    if path := values.get("seccomp_profile", ""):
        try:
            with open(path, encoding="utf-8") as file:
                values.values["seccomp_profile"] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise NotFoundError(f"Failed to read the seccomp profile {path}: {error}") from error
    return values


def make_machine(
    target: Target,
    values: Values,
    *,
    kind: PayloadKind,
    argv: tuple[str, ...],
    console: ConsoleMode,
    foreground: bool,
    service: str = SERVICE,
) -> tuple[MachineSpec, HostFacts]:
    """Return spec and facts of the machine that the settings describe.

    Args:
        target: the machine.
        values: what options and files say.
        kind: of its payload.
        argv: the payload.
        console: its console.
        foreground: whether the machine ends with this process.
        service: the manager that it is told to have. Ours gives it, where nobody says anything of
            it and it can be, a user namespace; systemd-nspawn does not.

    Raises:
        DeniedError: the caller is not root.
        ConfigError, UnsupportedError: settings do not go together, or are not supported here.
    """
    if os.geteuid():
        raise DeniedError("Only root may start machines", "Try again with sudo.")
    try:
        return _make_machine(
            target,
            values,
            kind=kind,
            argv=argv,
            console=console,
            foreground=foreground,
            service=service,
        )
    except PymachineError:
        if target.machine is not None and target.machine.ephemeral:
            from machinectl_py.images.machines import remove_machine

            remove_machine(target.name)
        raise


def _make_machine(
    target: Target,
    values: Values,
    *,
    kind: PayloadKind,
    argv: tuple[str, ...],
    console: ConsoleMode,
    foreground: bool,
    service: str,
) -> tuple[MachineSpec, HostFacts]:
    ids = has_user_namespace(values, default=service == SERVICE)
    with view_root(target.root, root_spec(values), ids=ids) as view:
        # systemd-nspawn looks for os-release only if it boots; we do in a directory that is given.
        whole = view.image is None and view.inner == view.tree
        os_release = kind == "boot" or (service == SERVICE and whole)
        _check_tree(view, os_release=os_release)
        if view.notice:
            warn(view.notice)
        frame = Frame(
            service=service,
            name=target.name,
            root=target.root,
            kind=kind,
            argv=argv,
            console=console,
            tree_id=store.machine_id(view.inner),
            new_id=os.urandom(16).hex(),
            environment=dict(os.environ),
            capability_numbers={name: number for number, name in enumerate(CAPABILITY_NAMES)},
        )
        users = _default_users(view, values) if service == SERVICE else None
        spec = make_spec(values, frame, users)
        if not spec.rootfs.image and spec.rootfs.image_policy:
            from machinectl_py.images.policy import parse_policy

            parse_policy(spec.rootfs.image_policy)  # of no use for a directory, but to be valid
        manager = manager_kind(spec.cgroup.manager, values.flag("keep_unit"))
        # machined takes only machines that live in a unit of systemd.
        register = spec.cgroup.register and manager != "embedded" and has_machined()
        if values.get("register", "auto") == "yes" and not register:
            raise UnsupportedError(
                "The machine cannot be registered (--register=yes): "
                + ("it is in no unit of systemd" if manager == "embedded" else _NO_MACHINED)
            )
        if manager == "unit" and "slice" in values.values:
            warn("--slice= has no effect, as the machine stays in the unit that this runs in")
        facts = probe_facts(
            target.root,
            manager=manager,
            register=register,
            foreground=foreground,
            bind_users=spec.bind_users.names,
            users=spec.users,
            mounts=probe_mounts(spec, view.tree),
            image=view.image,
            network=probe_network(spec.network, host_machine_id()),
        )
    return spec, facts
