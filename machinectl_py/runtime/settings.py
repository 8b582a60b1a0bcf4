"""What the command line and settings files say of a machine, as one set of values."""

from __future__ import annotations

from machinectl_py.config.merge import EMPTY, Values, merge
from machinectl_py.config.table import SETTINGS
from machinectl_py.errors import NotFoundError
from machinectl_py.images import store
from machinectl_py.log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.merge import FilesMode
    from machinectl_py.runtime.target import Selection, Target


def read_values(
    selection: Selection, target: Target, mode: FilesMode, *, lenient: bool = False
) -> Values:
    """Return what options and settings files say of a machine.

    Args:
        selection: with the options.
        target: the machine that it selects.
        mode: how far files count.
        lenient: whether what is not valid in a file is passed over with a warning.

    Raises:
        ConfigError: a value in a file is not valid.
        NotFoundError: a file that a value names cannot be read.
    """
    options = selection.options
    if target.words:  # which say how to start, as Parameters= does
        options = options.replace(
            values=options.values | {"parameters": target.words},
            origins=options.origins | {"parameters": "arguments"},
            said=options.said | {"parameters", "start"},
        )
    files = EMPTY
    if mode != "no":
        from machinectl_py.config.nspawn_file import settings_files

        if found := settings_files(target.settings, target.beside):
            from machinectl_py.config.merge import from_files

            files = from_files(found, warn, lenient=lenient, trust_all=mode == "trusted")
    values = _read_in(merge(options, files, SETTINGS, mode))
    if target.machine is not None:
        from machinectl_py.images.drivers import root_values

        values.values.update(root_values(target.machine))
    if selection.directory is None and store.is_image(target.root):  # found by its name
        values.values["image"] = target.root
    return values


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
