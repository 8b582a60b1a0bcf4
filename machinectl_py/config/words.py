"""Splitting text as systemd does: words with quotes, and fields between colons."""

from __future__ import annotations

_BLANKS = " \t\n\r"
_QUOTES = "\"'"


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a list, as of Parameters= or Environment=.

    Quotes join what blanks would part, and may stand anywhere in a word. A backslash is a letter
    as any: so systemd reads these keys, other than those of units.

    Raises:
        ValueError: a quote is not closed.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    for letter in text:
        if quote:
            if letter == quote:
                quote = ""
            else:
                assert word is not None
                word.append(letter)
        elif letter in _QUOTES:
            quote, word = letter, word or []
        elif letter in _BLANKS:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word or []
            word.append(letter)
    if quote:
        raise ValueError(f"a closing {quote}")
    if word is not None:
        words.append("".join(word))
    return tuple(words)


def join_words(words: tuple[str, ...]) -> str:
    """Return the text that `split_words` splits into these words."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """Return a word in quotes if it needs any: each part of it in those that it does not hold."""
    if word and not set(word) & set(_BLANKS + _QUOTES):
        return word
    # What stands between double quotes goes into double quotes, and these into single ones.
    parts = [f'"{part}"' for part in word.split('"')]
    return "'\"'".join(parts)


def split_fields(text: str, most: int = -1) -> list[str]:
    r"""Return the fields between colons; "\:" is a colon and "\\" a backslash in a field.

    Args:
        text: such as "/source:/target:rbind,idmap".
        most: how many fields there are at most; the last one is the rest as it stands. -1: any.

    Raises:
        ValueError: the text ends in a backslash.
    """
    fields = [""]
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            if at + 1 == len(text):
                raise ValueError("something after the last backslash")
            fields[-1] += text[at + 1]
            at += 2
            continue
        at += 1
        if letter != ":":
            fields[-1] += letter
        elif len(fields) + 1 == most:
            fields.append(text[at:])
            break
        else:
            fields.append("")
    return fields


def join_fields(fields: tuple[str, ...]) -> str:
    """Return the text that `split_fields` splits into these fields."""
    return ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields)
