"""An option of a command line; the tables of all verbs are made of these."""

from __future__ import annotations

from machinectl_py.record import Record


class Option(Record):
    """A row of a verb's table of options."""

    name: str  # with its dashes: "--signal"
    short: str = ""  # "-s"
    value: str = ""  # what the help calls the value; "" for a flag
    optional_value: str = ""  # taken when "--name" comes without "=value"; "" requires a value
    takes_next: bool = False  # a next word that is no option is its value, not `optional_value`
    many: bool = False  # may be given more than once; the values add up
    choices: tuple[str, ...] = ()
    help: str = ""
