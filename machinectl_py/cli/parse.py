"""Command lines: one loop over a table of options, for every verb.

GNU's rules as systemd's tools have them: options before or after the arguments (but not after
the command of a verb that takes one), `--name=value`, `--name value`, `-nvalue`, `-n value`,
bundled flags, `--` ends them. An unknown option names the closest one.
"""

from __future__ import annotations

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HELP = Option(name="--help", short="-h")  # what follows it is not looked at


class Arguments:
    """What a command line said: options by name, and the other words."""

    def __init__(self, values: dict[str, Any], words: list[str]) -> None:
        """Hold the values by option name without dashes ("signal") and the words."""
        self.values = values
        self.words = words

    def flag(self, name: str) -> bool:
        """Say whether a flag was given."""
        return bool(self.values.get(name, False))

    def text(self, name: str, default: str = "") -> str:
        """Return the last value given, or `default`."""
        value = self.values.get(name, default)
        return str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values of an option that may be given more than once, in order."""
        return tuple(self.values.get(name, ()))

    def given(self, name: str) -> bool:
        """Say whether the option was on the command line."""
        return name in self.values

    def number(self, name: str, default: int) -> int:
        """Return the value as a whole number.

        Raises:
            UsageError: it is none, or below zero.
        """
        if name not in self.values:
            return default
        text = str(self.values[name])
        if not text.isascii() or not text.isdigit():
            raise UsageError(f"--{name}={text} is not a whole number")
        return int(text)


def parse(options: tuple[Option, ...], argv: list[str], *, command: int = -1) -> Arguments:
    """Return what `argv` says by this table.

    Args:
        options: the verb's options.
        argv: the words after the verb.
        command: how many words precede a command whose own options are not ours (`exec NAME
            COMMAND…` has 1); -1 if the verb takes no command.

    Raises:
        UsageError: an unknown option, a missing value, or one that is not a choice; a word of ours
            that is empty, which no verb has a meaning for.
    """
    options = (*options, _HELP)
    by_name = {option.name: option for option in options}
    by_short = {option.short: option for option in options if option.short}
    values: dict[str, Any] = {}
    words: list[str] = []
    rest = list(argv)
    while rest and "help" not in values:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("--"):
            name, equals, text = word.partition("=")
            _take(_find(by_name, name), text if equals else None, rest, values)
        elif word.startswith("-") and len(word) > 1:
            _take_short(by_short, word, rest, values)
        else:
            words.append(word)
            # With -D in the place of a name, the command begins one word earlier.
            if 0 <= command < len(words) + ("directory" in values):
                words += rest[1:] if rest[:1] == ["--"] else rest
                break
    own = len(words) if command < 0 else max(command - ("directory" in values), 0)
    if "help" not in values and "" in words[:own]:
        raise UsageError("An argument is empty", "A variable of the shell that is not set?")
    return Arguments(values, words)


def _find(by_name: dict[str, Option], name: str) -> Option:
    if name in by_name:
        return by_name[name]
    candidates = [full for full in by_name if full.startswith(name)]
    if len(candidates) == 1:  # getopt_long's unambiguous abbreviation
        return by_name[candidates[0]]
    raise UsageError(f"Unknown option {name}" + closest(name, tuple(by_name)))


def closest(word: str, known: tuple[str, ...]) -> str:
    """Return ", did you mean X?" for a mistyped word, or ""."""
    import difflib

    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f", did you mean {near[0]}?" if near else ""


def _take_short(
    by_short: dict[str, Option], word: str, rest: list[str], values: dict[str, Any]
) -> None:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = by_short.get(f"-{letter}")
        if option is None:
            raise UsageError(f"Unknown option -{letter}")
        if option.value and not option.optional_value:
            _take(option, letters or None, rest, values)
            return
        _take(option, None, rest, values)


def _take(option: Option, text: str | None, rest: list[str], values: dict[str, Any]) -> None:
    key = option.name[2:]
    if not option.value:
        if text is not None:
            raise UsageError(f"{option.name} takes no value")
        values[key] = True
        return
    if text is None:
        follows = option.takes_next and rest and not rest[0].startswith("-")
        if option.optional_value and not follows:
            text = option.optional_value
        elif rest:
            text = rest.pop(0)
        else:
            raise UsageError(f"{option.name} needs a value: {option.name}={option.value}")
    if option.choices and text not in option.choices:
        raise UsageError(f"{option.name}={text}: must be one of {', '.join(option.choices)}")
    if option.many:
        values.setdefault(key, []).append(text)
    else:
        values.pop(key, None)  # so that `values` is in the order in which each was said last
        values[key] = text
