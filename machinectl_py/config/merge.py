"""Settings from the command line and from files become one set of values, each with its origin."""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UsageError
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal

    from machinectl_py.config.table import Setting

    # systemd-nspawn(1), --settings=
    FilesMode = Literal["yes", "no", "override", "trusted"]
    Warn = Callable[[str], None]


class Source(Record):
    """Values of one place: by field, with where each was said; and what was said at all."""

    values: dict[str, Any]
    origins: dict[str, str]
    said: frozenset[str]  # fields and masks, also of what was taken back


class Values:
    """The merged values, by field; what nobody said is missing."""

    def __init__(self, values: dict[str, Any], origins: dict[str, str]) -> None:
        """Hold the values, and where each comes from: "--bind" or "PATH:LINE"."""
        self.values, self.origins = values, origins

    def get(self, field: str, default: Any) -> Any:
        """Return a value, or `default` if nobody said any."""
        return self.values.get(field, default)

    def flag(self, field: str) -> bool:
        """Return a truth value, False if nobody said any."""
        return bool(self.values.get(field, False))


def collect(said: Iterable[tuple[Setting, str, str]], refuse: Callable[[str], None]) -> Source:
    """Read texts into values, in their order.

    Args:
        said: row, text and origin of each.
        refuse: is told of a text that is not valid; if it returns, the text is passed over.
    """
    from machinectl_py.config.kinds import is_of, read

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    fields: set[str] = set()
    for row, text, origin in said:
        fields |= {row.field, row.masks} - {""}
        if not text and row.kind not in _MAY_BE_EMPTY:
            # Settings that share a field, as all mounts do, do not take one another back.
            before = values.pop(row.field, ()) if row.many else ()
            if left := tuple(item for item in before if not is_of(row.kind, item)):
                values[row.field] = left
            else:
                values.pop(row.field, None)
                origins.pop(row.field, None)
            continue
        try:
            value = read(row.kind, text)
        except ValueError as error:
            refuse(f"{origin}={text}: expected {error}")
            continue
        values[row.field] = (*values.get(row.field, ()), *value) if row.many else value
        origins[row.field] = origin
    return Source(values=values, origins=origins, said=frozenset(fields))


_MAY_BE_EMPTY = frozenset({"background"})


def from_options(given: dict[str, Any], table: Iterable[Setting]) -> Source:
    """Return what a command line says.

    Args:
        given: by option without dashes a text, or a list of texts of one that adds up.
        table: the rows.

    Raises:
        UsageError: a text is not valid.
    """
    rows = {row.name[2:]: row for row in table if row.kind and row.name[2:] in given}
    if not rows:
        return EMPTY

    def said() -> Iterable[tuple[Setting, str, str]]:
        # In the order of the command line, as more than one option may say the same thing.
        for name, texts in given.items():
            if row := rows.get(name):
                for text in texts if isinstance(texts, list) else [texts]:
                    yield row, str(text), row.name

    def refuse(problem: str) -> None:
        raise UsageError(problem)

    return collect(said(), refuse)


EMPTY = Source(values={}, origins={}, said=frozenset())


def from_files(
    files: list[tuple[str, bool]], warn: Warn, *, lenient: bool, trust_all: bool = False
) -> Source:
    """Return what files say, later ones after earlier ones.

    One that is not trusted neither adds to what one that is says, nor takes it back.

    Args:
        files: paths, and whether each is trusted.
        warn: is told of unknown keys, and of privileged ones in a file that is not trusted.
        lenient: whether what is not valid is passed over with a warning, as systemd-nspawn does.
        trust_all: whether all files are trusted.

    Raises:
        ConfigError: a file cannot be read, or what it says is not valid.
    """
    from machinectl_py.config.table import SETTINGS

    def refuse(problem: str) -> None:
        if not lenient:
            raise ConfigError(problem)
        warn(f"{problem}; passed over")

    def collected(trusted: bool) -> Source:
        paths = [path for path, is_trusted in files if (is_trusted or trust_all) == trusted]
        return collect(_assignments(paths, warn, refuse, trusted=trusted), refuse)

    believed, others = collected(True), collected(False)
    if not others.said:
        return believed
    kept = _unhidden(others, believed.said, SETTINGS)
    return Source(
        values=kept | believed.values,
        origins={field: others.origins[field] for field in kept} | believed.origins,
        said=others.said | believed.said,
    )


def _assignments(
    paths: list[str], warn: Warn, refuse: Warn, *, trusted: bool
) -> Iterable[tuple[Setting, str, str]]:
    """Yield row, text and origin of what files say that is known, and believed of them."""
    from machinectl_py.config.nspawn_file import read_file
    from machinectl_py.config.table import by_key

    def complain(path: str, line: int, problem: str) -> None:
        refuse(f"{path}:{line}: {problem}")

    rows = by_key()
    sections = {section for section, _ in rows}
    for path in paths:
        for entry in read_file(path, complain):
            where = f"{entry.path}:{entry.line}: {entry.key}"
            row = rows.get((entry.section, entry.key))
            if row is None:
                if entry.section in sections or not entry.section.startswith("X-"):
                    warn(f"{where}= in [{entry.section}] is not known; passed over")
            elif not trusted and _needs_trust(row, entry.value):
                warn(f"{where}= is passed over, as {entry.path} is not trusted")
            else:
                yield row, entry.value, where


def _unhidden(source: Source, hidden: frozenset[str], table: Iterable[Setting]) -> dict[str, Any]:
    """Return the values of a source whose fields and masks are not hidden."""
    masks = {row.field: row.masks for row in table if row.masks}
    return {
        field: value
        for field, value in source.values.items()
        if field not in hidden and masks.get(field) not in hidden
    }


def _needs_trust(row: Setting, text: str) -> bool:
    # To deny system calls takes no trust.
    return row.privileged and not (row.kind == "filter" and text.startswith("~"))


def merge(options: Source, files: Source, table: Iterable[Setting], mode: FilesMode) -> Values:
    """Return the values of both: those of the command line come first, or with "override" last.

    What the one with the last word says of a field hides the same field, and those of the same
    mask, in the other. Resource limits hide one another by name.
    """
    if not files.said:
        return Values(dict(options.values), dict(options.origins))
    if mode == "override":
        files = _with_the_last_word(files, options)
        first, second, hidden = options, files, files.said
    else:
        first, second, hidden = files, options, options.said
    kept = _unhidden(first, hidden, table)
    values = kept | second.values
    for field in _ADD_UP & kept.keys() & second.values.keys():
        values[field] = (*kept[field], *second.values[field])
    if "rlimits" in files.values and "rlimits" in options.values:
        by_name = {limit.name: limit for limit in first.values["rlimits"]}
        by_name |= {limit.name: limit for limit in second.values["rlimits"]}
        values["rlimits"] = tuple(by_name.values())
    origins = {field: first.origins[field] for field in kept} | second.origins
    return Values(values, {field: origins[field] for field in values})


_ADD_UP = frozenset({"capability", "drop_capability", "ambient_capability"})


def _with_the_last_word(files: Source, options: Source) -> Source:
    """Return files as they count after a command line; `said` is what they hide of it."""
    said = files.said - _ADD_UP - {"capabilities"}
    if said & {"boot", "as_pid2"}:
        return files.replace(said=said)
    # Parameters= alone does not say how to start, nor does it take the place of a command.
    said -= {"start"}
    if "parameters" not in options.values:
        return files.replace(said=said)
    values = {field: value for field, value in files.values.items() if field != "parameters"}
    return files.replace(values=values, said=said - {"parameters"})
