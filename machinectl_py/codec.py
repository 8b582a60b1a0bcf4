"""JSON without the `json` package, which imports `re` and costs 10 ms.

The C accelerator behind `json`, which every CPython has, does the work; the text is the same.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}


def encode(value: Any) -> str:
    """Return compact JSON of dictionaries, lists, tuples, strings, numbers, booleans and None.

    Raises:
        TypeError: the value holds something else.
    """
    if value is None or value is True or value is False:
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        pairs = (f"{encode_basestring_ascii(key)}:{encode(item)}" for key, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(encode(item) for item in value) + "]"
    raise TypeError(f"cannot encode a {type(value).__name__}")


def decode(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON.
    """
    text = text.strip()
    try:
        value, end = make_scanner(_Context())(text, 0)  # type: ignore[arg-type]
    except (StopIteration, SystemError, ValueError):
        # The accelerator names an error only where `json.decoder` is loaded: let it say it.
        import json

        return json.loads(text)
    if end != len(text):
        raise ValueError(f"more after the JSON value at character {end}")
    return value
