"""Which machine is meant: by the name of an image or machine, a directory, or a disk image."""

from __future__ import annotations

import os

from machinectl_py.errors import (
    ConfigError,
    DeniedError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from machinectl_py.images import store
from machinectl_py.images.pick import base_name, pick_directory, pick_image
from machinectl_py.images.records import Machine, find_machine
from machinectl_py.images.resolve import machine_for
from machinectl_py.images.store import ephemeral_name
from machinectl_py.log import warn
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from machinectl_py.config.merge import Source


class Selection(Record):
    """What a command line says of the machine that is meant."""

    options: Source  # by the table of settings
    words: tuple[str, ...]  # besides options
    name: str = ""  # --machine=
    directory: str | None = None  # --directory=
    image: str | None = None  # --image=

    def option(self, field: str, default: Any) -> Any:
        """Return what an option says of a field of the table, or `default` if none does."""
        return self.options.values.get(field, default)

    def without(self, field: str) -> Self:
        """Return the same, as if no option had said anything of a field."""
        left = {key: value for key, value in self.options.values.items() if key != field}
        return self.replace(options=self.options.replace(values=left))


class Target(Record):
    """The machine that is meant."""

    name: str
    root: str
    words: tuple[str, ...]  # of the command line, that are left
    settings: str  # the name that its settings file has
    given: str = ""  # the path that was given, of which `root` is a version or the end of a link
    machine: Machine | None = None  # how it was made of an image; None: its root is used in place

    @property
    def beside(self) -> str:
        """The path beside which settings are looked for, too."""
        return self.machine.base if self.machine else self.given or self.root


def resolve(selection: Selection, *, fill: bool = True) -> Target:
    """Return the machine's name, its root, and the words that are left.

    Args:
        selection: what is said of it.
        fill: make a root that is missing from the template.

    Raises:
        UsageError: neither an image nor a directory is named.
        PymachineError: there is none, or the name is not valid.
    """
    if selection.directory is not None and selection.image is not None:
        raise UsageError("--directory= and --image= exclude each other")
    if selection.directory is None and selection.image is None:
        if not selection.words:
            raise UsageError("The name of an image, -D DIR or -i PATH is missing")
        image, *words = selection.words
        store.check_name(image)
        return resolve_name(selection.replace(words=tuple(words)), image, fill=fill)
    is_image = selection.image is not None
    path = selection.image or selection.directory
    if not path:
        raise UsageError(f"--{'image' if is_image else 'directory'}= is empty")
    given, root = find_path(path, image=is_image)
    name = selection.name or base_name(given).removesuffix(".raw" if is_image else "")
    if not selection.name and not store.is_valid_name(name):
        raise ConfigError(f"{given} gives no valid machine name", "--machine= gives it one.")
    return settle(selection, name, root, given, fill=fill)


def find_path(path: str, *, image: bool) -> tuple[str, str]:
    """Return the path of a root as it was given, made absolute, and where the root is.

    Raises:
        NotFoundError: the path is a versioned directory that holds no version.
    """
    given = os.path.abspath(path)
    return given, os.path.realpath(pick_image(given) if image else pick_directory(given))


def resolve_name(selection: Selection, image: str, *, fill: bool = True) -> Target:
    """Return the machine that is meant by the name of an image or machine, made if missing.

    Args:
        selection: what is said of it, with its own name if that is another.
        image: the name.
        fill: make what is missing.

    Raises:
        PymachineError: as `machine_for`.
    """
    name = selection.name or image
    if selection.option("template", "") and find_machine(image) is None:
        return settle(selection, name, _find_root(image), fill=fill)
    if selection.option("ephemeral", False):
        return _ephemeral(selection, image, fill=fill)
    store.check_name(name)
    machine = machine_for(image, name, make=fill)
    if machine:
        return _target_of(machine, name, selection.words)
    return settle(selection, name, store.find_root(image), fill=fill)


def _ephemeral(selection: Selection, image: str, *, fill: bool) -> Target:
    """Return a machine that goes when it ends: of an image in place, or of a machine as it is.

    Of a disk image, where that takes no copy, a machine is made too.
    """
    from machinectl_py.images.machines import create

    name = selection.name if selection.name not in ("", image) else ephemeral_name(image)
    store.check_name(name)
    source = find_machine(image)
    if source is not None:
        machine = create(image, name, ephemeral=True) if fill else source
        return _target_of(machine, name, selection.words).replace(settings=image)
    root = store.find_root(image)
    if fill and root.endswith(".raw"):
        try:
            machine = create(image, name, ephemeral=True)
        except UnsupportedError:
            pass
        else:
            return _target_of(machine, name, selection.words).replace(settings=image)
    return settle(selection, selection.name or image, root, fill=fill)


def _target_of(machine: Machine, name: str, words: tuple[str, ...]) -> Target:
    """Return a machine that was made of an image, as one to be started."""
    from machinectl_py.images.drivers import root_of

    root = root_of(machine.driver, machine.base, machine.own)
    return Target(name=name, root=root, words=words, settings=name, machine=machine)


def settle(
    selection: Selection, name: str, root: str, given: str = "", *, fill: bool = True
) -> Target:
    """Return a machine by what makes it besides: its template, and that it is ephemeral.

    Raises:
        PymachineError: the name is not valid, or the root cannot be made.
    """
    ephemeral = selection.option("ephemeral", False)
    settings = name
    if ephemeral and not selection.name:
        name = ephemeral_name(name)  # so that many can run of one root
    store.check_name(name)
    if fill and (template := selection.option("template", "")):
        if ephemeral:  # before anything is made
            raise ConfigError("--ephemeral and --template= do not go together")
        _fill_root(template, root)
    return Target(name=name, root=root, words=selection.words, settings=settings, given=given)


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
