"""Frozen, slotted, keyword-only records.

A record is what `dataclass(frozen=True, slots=True, kw_only=True)` makes, without the cost:
`dataclasses` imports `inspect` and compiles source for each class (25 to 40 ms for a program
of this size), which a verb that lasts 20 ms cannot pay. The metaclass below reads the
annotations, which stay strings (`from __future__ import annotations` is required in every
module that declares a record), and one generic `__init__` serves all.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_arguments: object) -> object:
        """Stand in for `typing.dataclass_transform`, which only the type checker reads."""
        return lambda decorated: decorated


@dataclass_transform(frozen_default=True, kw_only_default=True)
class RecordMeta(type):
    """Turn annotations into slots and class attributes of the same name into defaults."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]
    _setters: dict[str, Callable[[Any, Any], None]]

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> RecordMeta:
        """Build the class; fields of the bases come first."""
        annotations = space.get("__annotations__", {})
        own = [field for field, text in annotations.items() if not text.startswith("ClassVar")]
        fields: list[str] = []
        defaults: dict[str, Any] = {}
        for base in reversed(bases):
            fields += [field for field in getattr(base, "_fields", ()) if field not in fields]
            defaults |= getattr(base, "_defaults", {})
        defaults |= {field: space.pop(field) for field in own if field in space}
        new = [field for field in own if field not in fields]
        space["__slots__"] = tuple(new)
        made = super().__new__(cls, name, bases, space)
        made._fields = (*fields, *new)
        made._defaults = defaults
        # Those of the slots themselves, as an instance refuses to be changed.
        made._setters = {field: getattr(made, field).__set__ for field in made._fields}
        return made


class Record(metaclass=RecordMeta):
    """A frozen value. Fields are scalars, records, or tuples of these.

    Raises:
        TypeError: a field is missing or unknown.
    """

    def __init__(self, **values: Any) -> None:
        """Set every field from `values` or its default."""
        cls = type(self)
        whole = cls._defaults | values
        try:
            for field, put in cls._setters.items():
                put(self, whole[field])
        except KeyError as error:
            raise TypeError(f"{cls.__name__}: field {error} is missing") from None
        if len(whole) != len(cls._setters):
            unknown = next(field for field in values if field not in cls._setters)
            raise TypeError(f"{cls.__name__}: unknown field '{unknown}'")

    def __setattr__(self, field: str, value: object) -> None:
        """Refuse: a record never changes."""
        raise AttributeError(f"{type(self).__name__}.{field} is frozen")

    def __delattr__(self, field: str) -> None:
        """Refuse: a record never changes."""
        raise AttributeError(f"{type(self).__name__}.{field} is frozen")

    def __eq__(self, other: object) -> bool:
        """Compare field by field; records of different classes differ."""
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in type(self)._fields)

    def __hash__(self) -> int:
        """Hash as the tuple of the fields."""
        return hash((type(self), *(getattr(self, field) for field in type(self)._fields)))

    def __repr__(self) -> str:
        """Show the constructor call that makes this record."""
        body = ", ".join(f"{field}={getattr(self, field)!r}" for field in type(self)._fields)
        return f"{type(self).__name__}({body})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with these fields changed."""
        return type(self)(**({f: getattr(self, f) for f in type(self)._fields} | changes))

    def to_data(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and scalars, as JSON has them."""
        return {field: _plain(getattr(self, field)) for field in type(self)._fields}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """Build the record again from what `to_data` made; fields not known here are dropped.

        Dropping lets a newer pymachine's state be read by an older one during an upgrade.
        """
        types = _field_types(cls)
        return cls(**{f: _typed(types[f], data[f]) for f in cls._fields if f in data})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_data()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


_types_of: dict[type, dict[str, Any]] = {}
_SCALARS = frozenset({"str", "int", "bool", "float"})


def _field_types(cls: type) -> dict[str, Any]:
    """Evaluate the annotations of a record class, once; 4 µs each.

    None is what is taken as it is, and what only the checker knows.
    """
    if cls in _types_of:
        return _types_of[cls]
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        space = vars(sys.modules[base.__module__])
        for field, text in vars(base).get("__annotations__", {}).items():
            if text in _SCALARS:
                found[field] = None
                continue
            try:
                found[field] = eval(text, space)  # noqa: S307 - our own annotations, never input
            except NameError:  # a name imported for the type checker alone, such as Literal
                found[field] = None
    _types_of[cls] = found
    return found


def _typed(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_data(value)
    arguments: tuple[Any, ...] = getattr(kind, "__args__", ())
    if isinstance(value, list):
        if len(arguments) == 2 and arguments[1] is not Ellipsis:
            return tuple(_typed(of, item) for of, item in zip(arguments, value, strict=True))
        return tuple(_typed(arguments[0] if arguments else None, item) for item in value)
    if isinstance(value, dict):  # Record | None, or one of several records
        return _choose(arguments, value).from_data(value)
    return value


def _choose(kinds: tuple[Any, ...], data: dict[str, Any]) -> type[Record]:
    """Return the record that data is of: the one whose fields are these, or most of them."""
    records = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Record)]
    return max(records, key=lambda kind: len(data.keys() & kind._fields) - len(kind._fields))
